"""LlamaIndex: an ingestion pipeline with a document store, upserts and deletes.

As its guide says: stable document ids, ``UPSERTS_AND_DELETE``, ``persist`` after every run and
``load`` before the next.
"""

import json
import sys
from pathlib import Path

from hashed_words import vectors
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.vector_stores.lancedb import LanceDBVectorStore

TOKENS_PER_CHUNK = 128


class HashedWords(BaseEmbedding):
    """The vectors of every peer."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return vectors([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return vectors(texts)

    def _get_query_embedding(self, query: str) -> list[float]:
        return vectors([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return vectors([query])[0]


def main(corpus: Path, lake: Path) -> None:
    """Load all documents; the document store tells which are new, changed or gone."""
    documents = []
    for path in sorted(corpus.iterdir()):
        for record in map(json.loads, path.read_text().splitlines()):
            about = {"source": path.name}
            documents.append(
                Document(
                    id_=f"{path.name}/{record['id']}",
                    text=record["text"],
                    metadata=about,
                    excluded_embed_metadata_keys=list(about),
                )
            )
    state = lake / "pipeline_storage"
    pipeline = IngestionPipeline(
        transformations=[
            SentenceSplitter(chunk_size=TOKENS_PER_CHUNK, chunk_overlap=0),
            HashedWords(),
        ],
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        vector_store=LanceDBVectorStore(
            uri=str(lake),
            table_name="docs",
            mode="append" if (lake / "docs.lance").exists() else "create",
        ),
    )
    if state.exists():
        pipeline.load(str(state))
    pipeline.run(documents=documents)
    pipeline.persist(str(state))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
