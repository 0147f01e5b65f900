"""A retriever for LangChain: ``pip install 'embedlake[langchain]'``.

retriever = LakeRetriever(table=Lake.open("./lake").table("articles"), k=5)
documents = retriever.invoke("how do plants make energy")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, InstanceOf

from embedding_core.lake.query.filter_tree import filtered
from embedding_core.lake.query.hits import Hit
from embedding_core.lake.query.search import Query
from embedding_core.lake.table import Table
from embedding_core.recipe import Resources
from embedding_core.runs.answers import ask
from embedlake.extras import installing

with installing():
    from langchain_core.callbacks import (
        AsyncCallbackManagerForRetrieverRun,
        CallbackManagerForRetrieverRun,
    )
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables.config import run_in_executor


class LakeRetriever(BaseRetriever):
    """Chunks of a table as LangChain's documents, best first.

    Each query reads the newest version of the table and asks in its space in service, with the
    model that the table names. ``k``, ``filter``, ``hybrid`` and ``exact`` may also be given to
    ``invoke`` and ``ainvoke``, for that query. A document's metadata are the table's metadata
    columns, ``source_uri``, ``doc_id``, ``chunk_index`` and ``_score``, see ``Hit.score``.
    """

    table: InstanceOf[Table]
    """The table to search: ``Lake.open(uri).table(name)``."""
    k: int = 10
    """Documents per query."""
    filter: Mapping[str, Any] | None = None
    """What rows must have: ``{"year": {"$gte": 2020}, "tag": "news"}``, see docs/clients.md."""
    hybrid: bool = False
    """Fuse with full-text search."""
    exact: bool = False
    """Compare every row, past the index."""
    resources: InstanceOf[Resources] = Field(default_factory=Resources)
    """Where the model runs."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **changes: Any
    ) -> list[Document]:
        options = {name: getattr(self, name) for name in ("k", "filter", "hybrid", "exact")}
        options |= {name: value for name, value in changes.items() if name in options}
        tree = options.pop("filter")
        hits = ask(self.table, query, filtered(Query(**options), tree), self.resources)
        return [_document(hit) for hit in hits]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **changes: Any
    ) -> list[Document]:
        return await run_in_executor(
            None, self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **changes
        )


def _document(hit: Hit) -> Document:
    """A hit for LangChain; no metadata column begins with an underscore, so none is hidden."""
    metadata = {
        **hit.metadata,
        "source_uri": hit.source_uri,
        "doc_id": hit.doc_id,
        "chunk_index": hit.chunk_index,
        "_score": hit.score,
    }
    return Document(id=hit.chunk_id, page_content=hit.text, metadata=metadata)
