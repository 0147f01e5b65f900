"""A retriever for LlamaIndex: ``pip install 'embedlake[llama-index]'``.

retriever = LakeRetriever(Lake.open("./lake").table("articles"), similarity_top_k=5)
nodes = retriever.retrieve("how do plants make energy")
"""

from __future__ import annotations

import asyncio
from typing import Any

from embedding_core.errors import UsageError
from embedding_core.lake.query.filter_tree import filtered
from embedding_core.lake.query.hits import Hit
from embedding_core.lake.query.search import Query
from embedding_core.lake.table import Table
from embedding_core.recipe import Resources
from embedding_core.runs.answers import ask
from embedlake.extras import installing

with installing():
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import (
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        RelatedNodeInfo,
        TextNode,
    )
    from llama_index.core.vector_stores import (
        FilterCondition,
        FilterOperator,
        MetadataFilter,
        MetadataFilters,
    )

OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.TEXT_MATCH: "$contains",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "$icontains",
}
"""The others ask for values in a list, and no metadata column holds lists."""


class LakeRetriever(BaseRetriever):
    """Chunks of a table as LlamaIndex's nodes, best first.

    Each query reads the newest version of the table and asks in its space in service, with the
    model that the table names. A node's metadata are the table's metadata columns, ``source_uri``
    and ``chunk_index``; its source is the document, so ``ref_doc_id`` is the ``doc_id``. The score
    is ``Hit.score``.
    """

    def __init__(
        self,
        table: Table,
        similarity_top_k: int = 10,
        filters: MetadataFilters | None = None,
        hybrid: bool = False,
        exact: bool = False,
        resources: Resources | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        tree = None if filters is None else _tree(filters)
        self._table = table
        self._query = filtered(Query(similarity_top_k, hybrid=hybrid, exact=exact), tree)
        self._resources = resources or Resources()
        super().__init__(callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = ask(self._table, query_bundle.query_str, self._query, self._resources)
        return [_node(hit) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _tree(filters: MetadataFilters) -> dict[str, Any]:
    """LlamaIndex's filters as ``filter_tree`` has them. Raises ``UsageError`` for operators on
    lists."""
    parts = [
        _tree(part) if isinstance(part, MetadataFilters) else _comparison(part)
        for part in filters.filters
    ]
    if not parts:
        return {}
    if filters.condition == FilterCondition.NOT:  # passes what passes none of them
        return {"$not": {"$or": parts}}
    return {"$or" if filters.condition == FilterCondition.OR else "$and": parts}


def _comparison(part: MetadataFilter) -> dict[str, Any]:
    if part.operator == FilterOperator.IS_EMPTY:
        return {part.key: None}
    if part.operator not in OPERATORS:
        names = ", ".join(operator.name for operator in (*OPERATORS, FilterOperator.IS_EMPTY))
        raise UsageError(
            f"the filter of {part.key!r} uses {part.operator.name}, which is for lists, and no "
            f"metadata column holds lists; use one of {names}"
        )
    return {part.key: {OPERATORS[part.operator]: part.value}}


def _node(hit: Hit) -> NodeWithScore:
    metadata = {**hit.metadata, "source_uri": hit.source_uri, "chunk_index": hit.chunk_index}
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=hit.doc_id)}
    node = TextNode(id_=hit.chunk_id, text=hit.text, metadata=metadata, relationships=source)
    return NodeWithScore(node=node, score=hit.score)
