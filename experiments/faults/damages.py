"""A bit flips in a file, or the file ends too early: is it found, named, repaired?"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import lance
import numpy as np

from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.errors import EmbedlakeError
from embedding_core.lake.ledger import ledger_table, rejects_table
from embedding_core.lake.table import Table, table_of
from embedding_core.lake.upkeep.row_audit import Damage
from embedding_core.runs.repair import audit, repair
from embedding_core.runs.table_status import status
from experiments.faults.child import in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.kills.work import maintain_table
from experiments.faults.shim import Fault
from experiments.faults.stage import RESOURCES, Stage, Wrong, raise_if, shared_stage
from experiments.faults.world import TOLERANCE

DOCUMENTS, FILES = 30, 8
FLIP, TRUNCATION = "flip", "truncation"
SEEDS = {FLIP: 100, TRUNCATION: 50}
"""Damages of each kind that are drawn: there could be a million."""
SAMPLE_ROWS = 100_000
"""All rows are encoded again."""
REFUSED = "refused"
STAGED = "staged"
_MENDED = "`--repair` and the next run make it right"
_SEEN = f"what changes what is read is found by `verify --deep`, with its file; {_MENDED}"
_REFUSED = "or the error is embedlake's and names the manifest"
WORDS = {
    "data": ("a data file", _SEEN),
    "deletions": ("a deletion file", _SEEN),
    "indexes": (
        "a file of an index",
        "rows are as before, or it is found; the next run makes the index again",
    ),
    "manifests": ("the newest manifest", f"rows are as before, {_REFUSED}"),
    "ledger": ("a file of the ledger's table", f"{_SEEN}; {_REFUSED}"),
    "rejects": ("a file of the rejects' table", f"{_SEEN}; {_REFUSED}"),
    STAGED: (
        "a file that a killed run staged",
        "the next run makes the table right or fails, and names what is damaged; what it commits "
        f"all the same is found by `verify --deep`; {_MENDED}",
    ),
}
"""What is damaged, and what must hold, by the room."""


def damages(folder: Path, room: str) -> Experiment:
    """``verify --deep`` finds what changes what is read, and names the file; repair makes it right.

    The next run makes broken indexes again. A damaged manifest is refused with an error of
    embedlake's. ``room``: whose files are damaged, a key of ``WORDS``.
    """
    stage, rows, answers = _indexed_stage(folder.parent / "indexed")
    stage.put_back()  # other experiments share the stage
    files = stage.prepare(partial(_live_files, stage, room))

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        where = damage_file(files, point)
        reading = in_child(partial(_read, stage, rows))
        seen = in_child(partial(_look, stage))
        tally.injected(reading)
        if reading.status:
            tally.counts["changes what is read"] += 1
            tally.counts["served without an error"] += reading.kind == "Wrong"
            if tally.expect(f"{where}, verify --deep", seen) and seen.value is None:
                tally.violations.append(f"{where}: verify --deep finds nothing")
        else:
            tally.counts["rows as before"] += 1
            if seen.value is None and tally.expect(f"{where}, verify --deep", seen):
                answering = in_child(partial(_answers, stage))
                other = tally.expect(f"{where}, a search", answering) and answering.value != answers
                tally.counts["other answers of an approximate index"] += other
        if seen.value == REFUSED:
            return
        if reading.status and room == "indexes":
            tally.expect(f"{where}, the next run", in_child(stage.run_and_check))
        mended = in_child(partial(_mend, stage, rows))
        tally.expect(f"{where}, repair and the next run", mended)

    return _experiment(stage, room, inject)


def staged_damages(folder: Path) -> Experiment:
    """A run is killed, a file that it staged is damaged, and the same run goes on with the rest."""
    stage = shared_stage(folder)
    change = _change_with_most_staged(stage)

    def inject(point: Point, tally: Tally) -> None:
        stage.put_back()
        in_child(stage.hit(Fault.KILL_BEFORE, change, stage.run))
        where = damage_file(_staged_files(stage), point)
        running = in_child(stage.run)
        tally.injected(running)
        checked = in_child(stage.check_done)
        if running.status == 0 and checked.status == 0:
            tally.counts["rows as before"] += 1
            return
        tally.counts["served without an error"] += running.status == 0
        seen = in_child(partial(_look, stage))
        expected = running.status == 0 and tally.expect(f"{where}, verify --deep", seen)
        if expected and seen.value is None:
            tally.violations.append(f"{where}: {checked.error}; verify --deep finds nothing")
        mended = in_child(partial(_mend, stage))
        tally.expect(f"{where}, repair and the next run", mended)

    return _experiment(stage, STAGED, inject)


def _experiment(stage: Stage, room: str, inject: Callable[[Point, Tally], None]) -> Experiment:
    what, must_hold = WORDS[room]
    return Experiment(
        injects=f"a bit flips in {what}, or the file ends too early",
        must_hold=must_hold,
        stage=stage,
        points=[point for kind, n in SEEDS.items() for point in numbered(kind, n)],
        inject=inject,
        is_drawn=True,
    )


def damage_file(files: Sequence[str], point: Point) -> str:
    """Flip a bit or cut a file, as a point says; the file's time of change stays.

    Returns the names of the file and its folder.
    """
    chance = random.Random(point.number)
    path = Path(chance.choice([file for file in files if Path(file).stat().st_size]))
    content, times = bytearray(path.read_bytes()), path.stat()
    offset = chance.randrange(len(content))
    if point.kind == TRUNCATION:
        del content[offset:]
    else:
        content[offset] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return f"{path.parent.name}/{path.name}"


@cache
def _indexed_stage(folder: Path) -> tuple[Stage, list[dict[str, Any]], list[list[str]]]:
    """A table with indexes, its rows, and the answers that it gives; experiments share them."""
    index = {"min_rows": 300, "target_recall": 0.8, "full_text": True}
    stage = Stage(folder, seed=3, index=index, reuse="table")
    for number in range(FILES):
        stage.world.write(f"f{number}.jsonl", DOCUMENTS)
    stage.prepare(stage.run_and_check)
    stage.prepare(partial(maintain_table, stage))  # files share a fragment, and leave it by halves
    for name in ("f0.jsonl", "f1.jsonl", "f3.jsonl"):
        stage.world.write(name, DOCUMENTS)
    stage.world.remove("f7.jsonl")
    stage.prepare(stage.run_and_check)
    stage.save()
    return stage, stage.prepare(partial(_rows, stage)), stage.prepare(partial(_answers, stage))


def _rows(stage: Stage) -> list[dict[str, Any]]:
    """Every column of every row, sorted by id."""
    rows: list[dict[str, Any]] = table_of(stage.recipe).to_arrow().to_pylist()
    return sorted(rows, key=lambda row: str(row["chunk_id"]))


def _read(stage: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise ``Wrong`` when other rows are read than before, by a scan or by an index."""
    now, before = _rows(stage), [dict(row) for row in rows]
    vectors, old_vectors = (np.array([row.pop("vector") for row in some]) for some in (now, before))
    if now != before or not np.allclose(vectors, old_vectors, rtol=0, atol=TOLERANCE):
        raise Wrong("what is read is not what was written")
    stage.check()


def _answers(stage: Stage) -> list[list[str]]:
    """The hits of searches by vectors, and by full text too."""
    table = table_of(stage.recipe)
    encoder = HashingEncoder(table.space()[1])
    return [
        [hit.chunk_id for hit in table.search(words, encoder, hybrid=hybrid)]
        for words in ("w1 w2 w3", "f4.jsonl w100")
        for hybrid in (False, True)
    ]


def _live_files(stage: Stage, room: str) -> list[str]:
    """Files of a room that the newest version of its table needs."""
    table = table_of(stage.recipe)
    beside = {"ledger": ledger_table, "rejects": rejects_table}
    tables = beside[room](table) if room in beside else table
    rooms = _files_by_room(tables)
    return [str(path) for name, paths in rooms.items() if room in (name, *beside) for path in paths]


def _files_by_room(table: Table) -> dict[str, list[Path]]:
    dataset: lance.LanceDataset = table.dataset()
    folder = Path(table.uri)
    fragments = dataset.get_fragments()
    manifests = sorted((folder / "_versions").glob("*.manifest"), key=os.path.getmtime)
    return {
        "data": [folder / "data" / file.path
                 for fragment in fragments for file in fragment.data_files()],
        "deletions": [folder / path
                      for fragment in fragments if (path := fragment.deletion_file())],
        "indexes": [
            path
            for index in dataset.describe_indices()
            for segment in index.segments
            for path in sorted((folder / "_indices" / str(segment.uuid)).iterdir())
        ],
        "manifests": manifests[-1:],
    }  # fmt: skip


def _change_with_most_staged(stage: Stage) -> int:
    """The change of a file, of every tenth, before which a killed run leaves most staged files."""
    n_staged: dict[int, int] = {}
    for change in range(10, stage.n_changes(Fault.KILL_BEFORE, stage.run), 10):
        stage.put_back()
        in_child(stage.hit(Fault.KILL_BEFORE, change, stage.run))
        n_staged[change] = len(_staged_files(stage))
    return max(n_staged, key=lambda change: n_staged[change])


def _staged_files(stage: Stage) -> list[str]:
    """Files that the units of a killed run have beside the table, and data files that no unit has
    committed."""
    staged = sorted(stage.lake.glob("_embedlake/docs/staged/*/*"))
    reports = (path.read_text() for path in staged if path.suffix == ".json")
    data = sorted((stage.lake / "docs.lance" / "data").iterdir())
    text = "".join(reports)
    return [str(path) for path in staged] + [str(path) for path in data if path.name in text]


def _look(stage: Stage) -> str | None:
    """What ``verify --deep`` finds in a damaged table; None when it finds nothing.

    Raises ``Wrong`` when no file is named. Errors that are not embedlake's come out as they are.
    """
    try:
        damages = _audit(stage)
        if not damages:
            status(stage.recipe)
            return None
    except EmbedlakeError:
        return REFUSED
    if not any(damage.data_files or damage.index or damage.source_uris for damage in damages):
        raise Wrong(f"no file and no index is named: {damages}")
    return damages[0].what


def _mend(stage: Stage, rows: Sequence[Mapping[str, Any]] = ()) -> None:
    """Repair and run; then ``rows`` are read again, if any are given, and nothing is damaged."""
    repair(stage.recipe, RESOURCES, deep=True, sample_rows=SAMPLE_ROWS)
    stage.run_and_check()
    if rows:
        _read(stage, rows)
    raise_if(damage.what for damage in _audit(stage))


def _audit(stage: Stage) -> Sequence[Damage]:
    return audit(stage.recipe, RESOURCES, deep=True, sample_rows=SAMPLE_ROWS).damages
