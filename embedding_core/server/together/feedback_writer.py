"""Writes feedback: rows that wait at the same time share a commit."""

from __future__ import annotations

from collections.abc import Sequence

from embedding_core.lake.readers.feedback import Feedback, append_feedback
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from embedding_core.server.together.gathering import Gathering


class FeedbackWriter:
    """The writer of a table's feedback."""

    def __init__(self, recipe: Recipe, most: int) -> None:
        """``most``: rows in one commit."""
        self._table = table_of(recipe)
        self._rows = Gathering[Feedback, None](self._append, most, "feedback")

    async def add(self, feedback: Feedback) -> None:
        """Add a row; it is committed when this returns. Raises ``LakeError`` or ``Transient``."""
        await self._rows.result(feedback)

    def _append(self, rows: Sequence[Feedback]) -> list[Exception | None]:
        append_feedback(self._table, rows)
        return [None] * len(rows)
