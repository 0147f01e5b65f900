"""The search service: questions in, answers out, whoever carries them. Knows no HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from embedding_core.encoder.engines import describe_model
from embedding_core.errors import EmbedlakeError, UsageError, words
from embedding_core.identity import space_id
from embedding_core.lake import schema
from embedding_core.lake.query.conditions import Condition, conditioned
from embedding_core.lake.query.hits import Hit, Hits
from embedding_core.lake.query.search import Query
from embedding_core.lake.readers.feedback import Feedback
from embedding_core.lake.readers.stored_documents import MOST_PASSAGES, stored_document
from embedding_core.lake.snapshot import Snapshot
from embedding_core.plurals import counted
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.space.bridging import bridge_from
from embedding_core.server.answering.described import column_infos, has_full_text, space_infos
from embedding_core.server.answering.exact_values import exact
from embedding_core.server.answering.highlights import Highlighter, snippet_of
from embedding_core.server.answering.limits import Limits
from embedding_core.server.answering.messages import (
    BRIDGE,
    ComparisonAnswer,
    ComparisonMessage,
    DocumentAnswer,
    FeedbackMessage,
    FilterMessage,
    Found,
    SearchAnswer,
    SearchMessage,
    Seconds,
    Stored,
    TableInfo,
    TableList,
)
from embedding_core.server.answering.model_cache import ModelCache
from embedding_core.server.answering.movement import moved
from embedding_core.server.answering.refusals import Busy, NotServed
from embedding_core.server.answering.served_table import ServedTable, Serving
from embedding_core.server.answering.telemetry import Telemetry
from embedding_core.server.together.batching import Batcher
from embedding_core.server.together.feedback_writer import FeedbackWriter
from embedding_core.server.together.gathering import Gathering
from embedding_core.server.together.searches import Search, Searched, search_together

Result = TypeVar("Result")

AGAIN_SECONDS = 1.0
"""When to come again after a refusal."""
HEALTH_SECONDS = 2.0
"""A table that takes longer to look at is not well."""


class SearchService:
    """Answers questions about the tables of some recipes. Belongs to one event loop."""

    def __init__(
        self,
        recipes: Sequence[Recipe],
        resources: Resources,
        limits: Limits | None = None,
        takes_feedback: bool = False,
        bridge_from: ModelSpec | None = None,
    ) -> None:
        """``bridge_from``: a model that may ask the spaces in service through their bridges.

        Raises ``UsageError`` for two tables of one name.
        """
        self._bridge_from = bridge_from
        self.limits = limits or Limits()
        self.telemetry = Telemetry(recipes)
        self.models = ModelCache(resources, self.limits, self.telemetry.together.observe)
        self._pool = ThreadPoolExecutor(self.limits.searches, thread_name_prefix="embedlake-lake")
        self._searches = Gathering[Search, Searched](
            search_together, self.limits.together, "search", self.limits.searches
        )
        self._under_way = 0
        self.tables = _by_name(
            [ServedTable(recipe, self.models, self.limits) for recipe in recipes]
        )
        self._writers = {
            name: FeedbackWriter(table.recipe, self.limits.feedback_at_once)
            for name, table in self.tables.items()
            if takes_feedback
        }

    async def open(self) -> None:
        """Open every table and load its model. Raises what keeps one from answering, and
        ``ModelError`` for a model of bridges that cannot be found."""
        if self._bridge_from is not None:
            await asyncio.to_thread(describe_model, self._bridge_from)
        for table in self.tables.values():
            serving = await table.current()
            if has_full_text(serving.snapshot):
                # LanceDB's reranker takes a second to import: not in somebody's first query.
                await asyncio.to_thread(__import__, "lancedb.rerankers")

    def close(self) -> None:
        """Let go of the threads; call it when nothing is asked any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def is_well(self) -> bool:
        """Whether every table answers from its newest version, and its store soon."""
        with suppress(EmbedlakeError, TimeoutError):
            async with asyncio.timeout(HEALTH_SECONDS):
                for table in self.tables.values():
                    await table.current()
            return not any(table.problem for table in self.tables.values())
        return False

    async def metrics(self) -> bytes:
        """What was counted and timed, and the figures of the tables, for Prometheus."""
        return await self._in_pool(self.telemetry.text)

    async def search(self, name: str, message: SearchMessage) -> SearchAnswer:
        """The hits of a query, all of the version and space that served when it came.

        Raises ``UsageError`` for a query or filter that cannot be used, ``NotServed``, ``Busy``,
        and what ``ServedTable.current`` raises.
        """
        with self._admitted():
            serving = await self._table(name).current()
            return await self._answer(name, serving, message)

    async def compare(self, name: str, message: ComparisonMessage) -> ComparisonAnswer:
        """The hits of two spaces for a query, in one version of the table, and what moved."""
        with self._admitted():
            serving = await self._table(name).current()
            first, second = await asyncio.gather(
                *(
                    self._answer(name, serving, _for_column(message, column))
                    for column in message.columns
                )
            )
        shared = {hit.chunk_id for hit in first.hits} & {hit.chunk_id for hit in second.hits}
        return ComparisonAnswer((first, second), moved(first.hits, second.hits), len(shared))

    async def document(
        self, name: str, doc_id: str, source_uri: str | None, first: int, limit: int
    ) -> DocumentAnswer:
        """Passages of a document. Raises ``NotServed`` when the table has no such document."""
        limit = min(limit, MOST_PASSAGES)
        with self._admitted():
            snapshot = (await self._table(name).current()).snapshot
            document = await self._in_pool(
                stored_document, snapshot, doc_id, source_uri, first, limit
            )
        if document is None:
            raise NotServed(f"the table {name!r} has no document {doc_id[:200]!r}")
        answered = replace(document, metadata=exact(document.metadata))
        return DocumentAnswer(name, snapshot.version, answered, document.text)

    async def table_info(self, name: str) -> TableInfo:
        """What a table is: spaces, columns to filter by, what can be asked."""
        with self._admitted():
            serving = await self._table(name).current()
            return await self._in_pool(self._info, name, serving)

    async def table_list(self) -> TableList:
        """Every table, or why it cannot answer."""
        infos, problems = list[TableInfo](), dict[str, str]()
        for name in self.tables:
            try:
                infos.append(await self.table_info(name))
            except Busy:
                raise
            except EmbedlakeError as error:
                problems[name] = words(error)
        return TableList(infos, problems)

    async def add_feedback(self, message: FeedbackMessage) -> Stored:
        """Store feedback; it is in the table when this returns.

        Raises ``UsageError``, and as ``ServedTable.current``: a table that is gone gets none.
        """
        table = self._table(message.table)
        if not self._writers:
            raise UsageError("this server takes no feedback: it was started to read alone")
        content = message.model_dump(exclude={"table"})
        content["session"] = content["session"] or None
        feedback = Feedback(at=datetime.now(UTC), **content)
        with self._admitted():
            await table.current()
            await self._writers[table.name].add(feedback)
        self.telemetry.feedback.labels(table.name, feedback.signal).inc()
        return Stored(1)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """Count a request that is under way. Raises ``Busy`` for one too many."""
        if self._under_way >= self.limits.at_once:
            self.telemetry.refused.inc()
            raise Busy(
                f"{counted(self._under_way, 'request is', 'requests are')} under way, as many as "
                f"this server takes at once; ask again in {AGAIN_SECONDS:g} s",
                pause_seconds=AGAIN_SECONDS,
            )
        self._under_way += 1
        self.telemetry.under_way.inc()
        try:
            yield
        finally:
            self._under_way -= 1
            self.telemetry.under_way.dec()

    def _table(self, name: str) -> ServedTable:
        if name not in self.tables:
            raise NotServed(
                f"no table {name[:80]!r} is served here; there is {', '.join(self.tables)}"
            )
        return self.tables[name]

    async def _answer(self, name: str, serving: Serving, message: SearchMessage) -> SearchAnswer:
        started = time.perf_counter()
        if not message.query.strip():
            raise UsageError("the query has no words; write what to look for")
        snapshot = serving.snapshot
        batcher = await self._batcher(name, serving, message.column)
        through = self._bridge_from if message.column == BRIDGE else None
        column = message.column if through is None else schema.VECTOR
        query = Query(message.k, hybrid=message.hybrid, column=column)
        query = conditioned(query, list(map(_condition, message.filters)), snapshot.schema)
        encoded = await batcher.encode(message.query)
        space, vector = batcher.encoder.space, encoded.vector
        if through is not None:
            # Read for each query: a table's bridge may be made anew, or go, between two of them.
            bridge = await self._in_pool(bridge_from, snapshot, space)
            space, vector = serving.space, vector if bridge is None else bridge.mapped(vector)
        search = Search(snapshot, space, vector, message.query, query)
        searched = await self._searches.result(search)
        seconds = Seconds(encoded.seconds, searched.seconds, time.perf_counter() - started)
        self._observe(name, serving, seconds)
        return SearchAnswer(
            table=name,
            version=snapshot.version,
            column=message.column,
            space_id=space_id(space),
            model=space.model if through is None else through.name,
            hits=_found(searched.hits, message.query),
            seconds=seconds,
            notice=serving.notice if searched.hits else _notice(serving),
        )

    async def _batcher(self, name: str, serving: Serving, column: str) -> Batcher:
        """The model that asks a column. Raises ``UsageError`` for a column without vectors."""
        if column == schema.VECTOR:
            return serving.batcher
        if column == BRIDGE:
            if self._bridge_from is None:
                raise UsageError(
                    "this server asks through no bridge; start it with a model to bridge from, or "
                    "ask the column of a space"
                )
            return await self.models.of_model(self._bridge_from)
        _check_column(serving.snapshot, column)
        recipe = self._table(name).recipe
        return await self.models.of_column(recipe, serving.snapshot, column)

    def _observe(self, name: str, serving: Serving, seconds: Seconds) -> None:
        for stage in ("model", "search", "total"):
            self.telemetry.seconds.labels(name, stage).observe(getattr(seconds, stage))
        self.telemetry.version.labels(name, serving.space_id).set(serving.snapshot.version)

    def _info(self, name: str, serving: Serving) -> TableInfo:
        snapshot = serving.snapshot
        return TableInfo(
            table=name,
            recipe=self.tables[name].recipe.name,
            version=snapshot.version,
            rows=snapshot.n_rows,
            spaces=space_infos(snapshot, self._bridge_from),
            columns=column_infos(snapshot),
            hybrid=has_full_text(snapshot),
            feedback=bool(self._writers),
            notice=_notice(serving),
        )

    async def _in_pool(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Do work that waits for a store, on one of the threads for it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, work, *arguments)


def _by_name(tables: Sequence[ServedTable]) -> dict[str, ServedTable]:
    by_name: dict[str, ServedTable] = {}
    for table in tables:
        if table.name in by_name:
            raise UsageError(
                f"two recipes serve a table {table.name!r}; serve them by two servers, or call "
                "one of the tables otherwise"
            )
        by_name[table.name] = table
    return by_name


def _condition(message: FilterMessage) -> Condition:
    return Condition(message.column, message.operator, message.value)


def _for_column(message: ComparisonMessage, column: str) -> SearchMessage:
    return SearchMessage(column=column, **message.model_dump(exclude={"columns"}))


def _found(hits: Hits, query: str) -> list[Found]:
    """Hits as they are answered, with marks for the words of the query."""
    highlighter = Highlighter(query)
    answered = []
    for rank, hit in enumerate(hits, start=1):
        marks = highlighter.marks(hit.text)
        fields = {name: getattr(hit, name) for name in Hit.__slots__}
        fields["metadata"] = exact(hit.metadata)
        answered.append(
            Found(rank=rank, marks=marks, snippet=snippet_of(hit.text, marks), **fields)
        )
    return answered


def _check_column(snapshot: Snapshot, column: str) -> None:
    """Raise ``UsageError`` for a column that holds no vectors."""
    names = [name for name in snapshot.schema.names if schema.is_vector_column(name)]
    if column not in names:
        raise UsageError(
            f"the table has no vector column {column[:80]!r}; it has {', '.join(names)}"
        )


def _notice(serving: Serving) -> str | None:
    if not serving.snapshot.n_rows:
        return "the table has no rows yet: nothing can be found before a run has embedded some"
    return serving.notice
