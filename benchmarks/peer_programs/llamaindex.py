"""LlamaIndex: an ingestion pipeline with a document store, upserts and deletes."""

import json
import sys
from pathlib import Path

from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.vector_stores.lancedb import LanceDBVectorStore


def main(corpus: Path, lake: Path, model_folder: str) -> None:
    """Load all documents; the document store tells which are new, changed or gone."""
    documents = []
    for path in sorted(corpus.iterdir()):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            name = f"{path.name}/{record['id']}"
            about = {"document": record["id"], "source": path.name}
            documents.append(
                Document(
                    id_=name,
                    text=record["text"],
                    metadata=about,
                    excluded_embed_metadata_keys=list(about),
                )
            )
    state = lake / "state"
    kept = state / "docstore.json"
    store = SimpleDocumentStore.from_persist_path(str(kept)) if kept.exists() else None
    pipeline = IngestionPipeline(
        transformations=[
            # each document is one node, which knows its document: deletes go by that
            SentenceSplitter(chunk_size=4096, chunk_overlap=0),
            HuggingFaceEmbedding(model_folder, device="cpu"),
        ],
        docstore=store or SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        vector_store=LanceDBVectorStore(
            uri=str(lake),
            table_name="docs",
            mode="append" if (lake / "docs.lance").exists() else "create",
        ),
    )
    pipeline.run(documents=documents)
    state.mkdir(parents=True, exist_ok=True)
    pipeline.docstore.persist(str(kept))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
