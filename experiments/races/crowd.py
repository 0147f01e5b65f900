"""Runs, a re-embed, maintenance and readers on one table, each in a process and a loop."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.errors import EmbedlakeError, Unfilled
from embedding_core.identity import digest
from embedding_core.lake import lock
from embedding_core.lake.lock import Timing
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.switching import promote, retire
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import ModelSpec, Recipe
from embedding_core.runs.job import locked_for
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.space.build import build_space
from embedding_core.runs.space.release import go_back
from experiments.faults.stage import RESOURCES, Wrong, raise_if, run
from experiments.faults.world import Content, lost_to_indexes, torn_files
from experiments.machine.editions import Wording, content_of, edition_of, lines_of
from experiments.machine.spaces import DIMS, column_of, spaces_of
from tests.driver import recipe_for

TIMING = Timing(beat=0.2, expiry=3.0, poll=0.02)
LOCK_WAIT_SECONDS = 60.0
CATCH_UPS = 20
"""Times that rows are filled which came since, before a space is promoted."""
FILES = 12
MOST_CHANGED = 3
"""Files that change between two runs."""
LEAST_LINES, MOST_MORE_LINES = 4, 5
SHARE = 0.3
"""How often a space is rolled back or retired after a promote."""
WORDING = Wording(columns={"tag": "string"})
BY = "the crowd"
READ = ["chunk_id", "source_uri", "file_key", "chunk_index", "text", "tag"]


def lines(edition: int) -> tuple[str, ...]:
    """The lines of an edition."""
    return lines_of(edition, LEAST_LINES + edition % MOST_MORE_LINES)


@dataclass(frozen=True, slots=True)
class Crowd:
    """What the processes share: a folder, and a file in it that says that they may end."""

    folder: Path
    seed: int
    index: Mapping[str, Any]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the table."""
        return recipe_for(
            self.folder,
            source=WORDING.source(),
            chunk={"max_tokens": 8},
            model={"dim": DIMS[0]},
            index=self.index,
            maintain={"small_fragments": 4},
            release={"follow": True},
            max_rejected_share=1.0,
            max_removed_share=1.0,
        )

    @property
    def table(self) -> Table:
        """The table."""
        return table_of(self.recipe)

    @property
    def end(self) -> Path:
        """The file whose presence ends all loops."""
        return self.folder / "end"

    def write(self, number: int, edition: int) -> None:
        """Write a file of the source."""
        path = self.folder / "src" / f"f{number}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines(edition)))

    def contents(self) -> dict[str, Content]:
        """What the files say, by URI."""
        return {
            str(path): content_of(path.read_text().splitlines(), WORDING)
            for path in sorted((self.folder / "src").iterdir())
        }

    def ingest(self) -> dict[str, int]:
        """Change some files and run."""
        chance, edition = random.Random(self.seed), FILES

        def step() -> None:
            nonlocal edition
            for number in chance.sample(range(FILES), chance.randint(1, MOST_CHANGED)):
                edition += 1
                self.write(number, edition)
            report = run(self.recipe, TIMING, LOCK_WAIT_SECONDS)
            if report.outcome != "done":
                why = (*report.failures, *report.verification.problems)
                raise Wrong(f"a run ended as {report.outcome}: {why}")

        return self._repeat("run", step)

    def maintain(self) -> dict[str, int]:
        """Compact the tables and remove what is no longer needed."""
        return self._repeat("maintain", lambda: raise_if(maintain(self.recipe).problems))

    def reembed(self, n_promotes: int) -> dict[str, int]:
        """Build and promote spaces by turns, sometimes go back, sometimes retire; then all end."""
        lock.TIMING = TIMING
        chance, endings = random.Random(self.seed), Counter[str]()
        try:
            while endings["promote"] < n_promotes:
                serving = self.table.space()[1].dim
                dim = chance.choice([dim for dim in DIMS if dim != serving])
                endings[_ending("promote", partial(self._promote, dim))] += 1
                if chance.random() < SHARE:
                    endings[_ending("roll back", self._roll_back)] += 1
                if chance.random() < SHARE:
                    endings[_ending("retire", partial(self._retire, chance))] += 1
        finally:
            self.end.touch()
        return dict(endings)

    def read(self) -> dict[str, Any]:
        """Read the newest version, and the version that was the newest at first.

        Raises ``Wrong`` for what no commit made. Returns digests of the versions that were read.
        """
        digests: dict[int, str] = {}
        editions: dict[str, int] = {}
        first = self.table.open().version

        def step() -> None:
            for version in (None, first):
                snapshot = self.table.open(version)
                read = _looked(snapshot, editions if version is None else {})
                if digests.setdefault(snapshot.version, read) != read:
                    raise Wrong(f"version {snapshot.version} is read in two ways")

        while not self.end.exists():
            step()
        return {"digests": digests}

    def _promote(self, dim: int) -> None:
        with locked_for(self.recipe, BY, LOCK_WAIT_SECONDS, "build"):
            for number in range(1, CATCH_UPS + 1):
                build_space(self.recipe, ModelSpec(name="hashing", dim=dim), RESOURCES, BY)
                try:
                    promote(self.table, column_of(dim), BY)
                except Unfilled:
                    if number < CATCH_UPS:
                        continue
                    raise
                return

    def _roll_back(self) -> None:
        with locked_for(self.recipe, BY, LOCK_WAIT_SECONDS, "build"):
            go_back(self.recipe, RESOURCES, BY)

    def _retire(self, chance: random.Random) -> None:
        spaces = spaces_of(self.recipe)
        if spaces is not None and spaces.hidden_dims:
            retire(self.table, column_of(chance.choice(spaces.hidden_dims)), BY)

    def _repeat(self, name: str, step: Callable[[], object]) -> dict[str, int]:
        """Do a step until all end; how often it ended how."""
        lock.TIMING = TIMING
        endings = Counter[str]()
        while True:
            is_last = self.end.exists()
            endings[_ending(name, step)] += 1
            if is_last:
                return dict(endings)


def _ending(name: str, step: Callable[[], object]) -> str:
    """Do a step; its name, and the class of the error that embedlake refused it with."""
    try:
        step()
    except EmbedlakeError as error:
        return f"{name}: {type(error).__name__}"
    return name


def _looked(snapshot: Snapshot, newest_editions: dict[str, int]) -> str:
    """A digest of all rows. Raises ``Wrong`` when a file is not whole, when an older edition of it
    came back, when a vector is not its text's, and when an index misses a row."""
    rows = snapshot.dataset.to_table(columns=READ).to_pylist()
    editions: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        if row["chunk_index"] == 0:
            editions[row["source_uri"]].add(edition_of(row["text"]))
    versions = {
        uri: [content_of(lines(edition), WORDING) for edition in seen]
        for uri, seen in editions.items()
    }
    raise_if([*torn_files(snapshot, versions), *lost_to_indexes(snapshot, rows)])
    for uri, (edition,) in editions.items():
        if edition < newest_editions.setdefault(uri, edition):
            raise Wrong(f"edition {edition} of {uri} came back after {newest_editions[uri]}")
        newest_editions[uri] = edition
    (hits,) = snapshot.search_many([rows[0]["text"]], HashingEncoder(snapshot.space()[1]))
    if not hits or not {hit.chunk_id for hit in hits} <= {row["chunk_id"] for row in rows}:
        raise Wrong(f"a search gives {hits}")
    return digest(sorted(map(str, rows)))
