"""How far a run is: one bar in the terminal, a line in the flow's log, an artifact in Prefect."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from embedding_core.plurals import counted
from embedding_core.records import EmbeddedUnit
from embedding_core.runs.job import Job
from embedlake.orchestration.naming import artifact_key
from embedlake.orchestration.publishing import if_the_api_answers
from embedlake.silence import SILENT_SECONDS

PROGRESS = "embed-progress"
"""Kind of the artifact that says how far a run is."""


class RunProgress:
    """Counts the chunks of finished units; a context manager for as long as the run goes on."""

    def __init__(self, job: Job, total_units: int, estimated_chunks: int) -> None:
        self._total_units = total_units
        self._estimated_chunks = estimated_chunks
        self._done_units = self._chunks = self._tokens = 0
        self._started = time.perf_counter()
        self._said_at = time.monotonic()
        self._log = get_run_logger()
        self._artifact: object = None
        with if_the_api_answers(PROGRESS):
            self._artifact = create_progress_artifact(
                progress=0.0, key=artifact_key(PROGRESS, job.recipe), description=self._line()
            )
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("embed"),
            BarColumn(),
            TextColumn("{task.fields[line]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("embed", total=total_units, line=self._line())

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

    def expect(self, n_more: int) -> None:
        """Note that there are more units than the run began with."""
        self._total_units += n_more
        self._bar.update(self._task, total=self._total_units, line=self._line())

    def finished(self, unit: EmbeddedUnit | None) -> None:
        """Note a unit that ended; None for one that failed."""
        self._done_units += 1
        if unit is not None:
            self._chunks += sum(counts.chunks for counts in unit.counts)
            self._tokens += sum(counts.tokens for counts in unit.counts)
        self._bar.update(self._task, advance=1, line=self._line())

    @property
    def seconds_to_speak(self) -> float:
        """Until the run has been silent for too long."""
        return max(0.0, self._said_at + SILENT_SECONDS - time.monotonic())

    def still_working(self, n_under_way: int) -> None:
        """Say that the run goes on if nothing was said for a while."""
        if self.seconds_to_speak == 0:
            self._say(f"{self._line()} · {counted(n_under_way, 'unit')} under way")

    def publish(self) -> None:
        """Say in the log and in the artifact how far the run is; once per committed group."""
        self._say(self._line())
        if isinstance(self._artifact, UUID):
            share = self._done_units / self._total_units
            with if_the_api_answers(PROGRESS):
                update_progress_artifact(
                    self._artifact, progress=round(100 * share, 1), description=self._line()
                )

    def _say(self, line: str) -> None:
        self._log.info(line)
        self._said_at = time.monotonic()

    def _line(self) -> str:
        """For example: 320 of about 900 chunks · 2/5 units · 4,771 tokens/s · about 12 s left."""
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        is_over = self._done_units == self._total_units
        chunks = counted(self._chunks, "chunk")
        if not is_over:
            about = max(self._estimated_chunks, self._chunks)
            chunks = f"{self._chunks:,} of about {counted(about, 'chunk')}"
        parts = [chunks]
        if self._total_units > 1:
            parts.append(f"{self._done_units}/{counted(self._total_units, 'unit')}")
        if self._chunks:
            parts.append(f"{self._tokens / elapsed:,.0f} tokens/s")
        if self._done_units and not is_over:
            left = elapsed * (self._total_units / self._done_units - 1)
            parts.append(f"about {left:,.0f} s left")
        return " · ".join(parts)
