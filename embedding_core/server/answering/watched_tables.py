"""The figures of the tables that a server answers from, for those who watch them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from embedding_core.errors import EmbedlakeError, words
from embedding_core.recipe import Recipe
from embedding_core.runs.watched.table_figures import TableFigures, table_figures

log = logging.getLogger(__name__)

FRESH_SECONDS = 30.0
"""Figures are read again after this long: scrapes come more often, and from several servers."""

Look = tuple[list[TableFigures], list[str]]
"""Figures, and the names of tables that cannot be read."""


class WatchedTables:
    """Reads the figures of some tables, at most once in ``FRESH_SECONDS``; for any thread."""

    def __init__(
        self, recipes: Sequence[Recipe], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._recipes = recipes
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._seen: Look = [], []

    def look(self) -> Look:
        """The figures, and the names of tables that cannot be read; the log says why."""
        with self._lock:
            if self._clock() - self._looked_at >= FRESH_SECONDS:
                self._seen = self._read()
                self._looked_at = self._clock()
            return self._seen

    def _read(self) -> Look:
        figures, unreadable = list[TableFigures](), list[str]()
        for recipe in self._recipes:
            try:
                figures.append(table_figures(recipe))
            except EmbedlakeError as error:
                log.warning("no figures of table %s: %s", recipe.lake.table, words(error))
                unreadable.append(recipe.lake.table)
        return figures, unreadable
