"""How far a run is: one bar in the terminal, a line in the flow's log, an artifact in Prefect."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embedding_core.records import EmbeddedUnit


class RunProgress:
    """Counts finished units; a context manager for as long as the run goes on."""

    def __init__(self, total_units: int) -> None:
        self._total_units = total_units
        self._done_units = self._chunks = self._tokens = 0
        self._started = time.perf_counter()
        self._log = get_run_logger()
        self._artifact = create_progress_artifact(
            progress=0.0, key="embed-progress", description="Work units embedded"
        )
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("embed"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(
                "units · {task.fields[chunks]:,} chunks · {task.fields[rate]:,.0f} tokens/s"
            ),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("embed", total=total_units, chunks=0, rate=0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def finished(self, unit: EmbeddedUnit | None) -> None:
        """Note a unit that ended; None for one that failed."""
        self._done_units += 1
        if unit is not None:
            self._chunks += sum(one.chunks for one in unit.counts)
            self._tokens += sum(one.tokens for one in unit.counts)
        self._bar.update(self._task, advance=1, chunks=self._chunks, rate=self._rate())

    def publish(self) -> None:
        """Say in the log and in the artifact how far the run is; once per committed group."""
        share = self._done_units / self._total_units
        elapsed = time.perf_counter() - self._started
        left = elapsed / share - elapsed if share else 0.0
        self._log.info(
            "%d/%d units · %s chunks · %s tokens/s · about %.0f s left",
            self._done_units,
            self._total_units,
            f"{self._chunks:,}",
            f"{self._rate():,.0f}",
            left,
        )
        if isinstance(self._artifact, UUID):
            update_progress_artifact(self._artifact, progress=round(100 * share, 1))

    def _rate(self) -> float:
        return self._tokens / max(time.perf_counter() - self._started, 1e-9)
