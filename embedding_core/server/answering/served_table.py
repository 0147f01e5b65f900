"""A table that is served: its newest version together with the model that answers in it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from embedding_core.errors import EmbedlakeError, SetupError, Transient, words
from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake.schema import VECTOR
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.table import existing_table
from embedding_core.recipe import Recipe
from embedding_core.records import Space
from embedding_core.server.answering.limits import Limits
from embedding_core.server.answering.model_cache import ModelCache
from embedding_core.server.together.batching import Batcher

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers a query from beginning to end: one version, one space, one model."""

    snapshot: Snapshot
    space_id: str
    space: Space
    batcher: Batcher
    notice: str | None = None
    """Why the newest version does not answer, if it does not."""


class ServedTable:
    """Follows a recipe's table. Belongs to one event loop."""

    def __init__(
        self,
        recipe: Recipe,
        models: ModelCache,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recipe = recipe
        self._models = models
        self._limits = limits
        self._clock = clock
        self._lock = asyncio.Lock()
        self._looked_at = float("-inf")
        self._serving: Serving | None = None
        self._problem: EmbedlakeError | None = None
        self._noted: str | None = None
        self._following: asyncio.Task[None] | None = None
        self._failed_space: str | None = None
        self._failed_at = float("-inf")

    @property
    def name(self) -> str:
        """Name of the table."""
        return self.recipe.lake.table

    @property
    def problem(self) -> str | None:
        """What kept the last look from the newest version; None when all is well."""
        if self._problem is not None:
            return words(self._problem)
        return self._serving.notice if self._serving else None

    async def current(self) -> Serving:
        """What answers a query that comes now.

        A version whose model is not loaded yet answers as soon as it is; until then the version
        before goes on. Raises ``LakeError`` when the table is gone, ``ModelError`` when no model
        can answer, ``Transient`` when the store does not.
        """
        async with self._lock:
            if self._clock() - self._looked_at >= self._limits.fresh_seconds:
                await self._look()
        if self._serving is None:
            assert self._problem is not None
            raise self._problem
        return self._serving

    async def _look(self) -> None:
        self._problem = None
        try:
            await self._take_newest()
            self._noted = None
        except Transient as error:  # the store may answer again in a moment
            self._note(error, self._serving)
        except SetupError as error:
            self._note(error, None)
        self._looked_at = self._clock()

    async def _take_newest(self) -> None:
        snapshot = await asyncio.to_thread(self._open)
        space_id, space = snapshot.space()
        batcher = self._models.ready(space_id)
        if batcher is None and self._serving is None:
            batcher = await self._models.of_column(self.recipe, snapshot, VECTOR)
        if batcher is not None:
            self._serving = Serving(snapshot, space_id, space, batcher)
        elif self._following is None and self._may_try_again():
            self._following = asyncio.create_task(self._follow(snapshot))
            if self._failed_space != space_id:  # else the notice says why it failed before
                self._say(
                    f"the space {space_id[:SHOWN_DIGITS]} ({space.model}) came into service; its "
                    "model is being loaded, and the version before answers until then"
                )

    def _open(self) -> Snapshot:
        return existing_table(self.recipe).open_to_search()

    def _may_try_again(self) -> bool:
        return self._clock() - self._failed_at >= self._limits.retry_seconds

    async def _follow(self, snapshot: Snapshot) -> None:
        """Load the model of a version that came into service, and let that version answer."""
        try:
            batcher = await self._models.of_column(self.recipe, snapshot, VECTOR)
            self._serving = Serving(snapshot, *snapshot.space(), batcher)
            self._failed_space = None
        except EmbedlakeError as error:
            self._failed_space, self._failed_at = snapshot.space()[0], self._clock()
            self._say(f"the space in service cannot answer, the one before does: {words(error)}")
        finally:
            self._following = None

    def _say(self, notice: str) -> None:
        """Let answers say it; the log says it once."""
        if self._serving is not None and self._serving.notice != notice:
            log.warning("table %s: %s", self.name, notice)
            self._serving = replace(self._serving, notice=notice)

    def _note(self, error: EmbedlakeError, serving: Serving | None) -> None:
        if words(error) != self._noted:
            log.warning("table %s: %s", self.name, words(error))
        self._noted = words(error)
        self._problem = error
        self._serving = serving and replace(serving, notice=words(error))
