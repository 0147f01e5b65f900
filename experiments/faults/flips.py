"""A bit flips in a file of the table, or the file ends too early: is it found, named, repaired?"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lance
import numpy as np

from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.errors import EmbedlakeError
from embedding_core.lake.table import table_of
from embedding_core.lake.upkeep.row_audit import Damage
from embedding_core.runs.repair import audit, repair
from embedding_core.runs.table_status import status
from experiments.faults.child import in_child
from experiments.faults.stage import RESOURCES, Choice, Stage, Tally, Wrong, raise_if
from experiments.faults.world import TOLERANCE

DOCUMENTS, FILES = 30, 8
FLIPS = 60
"""Flips that there are at most: there could be a million."""
SAMPLE_ROWS = 100_000
"""All rows are encoded again."""
REFUSED = "refused"


def flips(folder: Path, choice: Choice, room: str = "", truncated: bool = False) -> Tally:
    """``verify --deep`` finds what changes what is read, and names the file; repair makes it right.

    The next run makes broken indexes again. A damaged manifest is refused with an error of
    embedlake's. ``room``: the table's folder whose files are damaged; "": any.
    """
    stage, tally = _indexed_stage(folder), Tally()
    rows, answers = stage.prepare(partial(_rows, stage)), stage.prepare(partial(_answers, stage))
    files = stage.prepare(partial(_live_files, stage, room))
    for number in choice.of(FLIPS, tally):
        stage.put_back()
        chance = random.Random(number)
        path = Path(chance.choice(files))
        _damage(path, chance, truncated)
        where = f"seed {number}, {path.parent.name}/{path.name}"
        reading = in_child(partial(_read, stage, rows))
        seen = in_child(partial(_look, stage))
        tally.injected(reading)
        if reading.status == 0:
            answering = in_child(partial(_answers, stage))
            if seen.value is None and tally.expect(f"{where}, a search", answering):
                other = answering.value != answers
                tally.counts["other answers of an approximate index"] += other
            tally.counts["rows as before"] += 1
            continue
        tally.counts["changes what is read"] += 1
        tally.counts["served without an error"] += reading.kind == "Wrong"
        if tally.expect(f"{where}, verify --deep", seen) and seen.value is None:
            tally.violations.append(f"{where}: verify --deep finds nothing")
        if room == "_indices":
            tally.expect(f"{where}, the next run", in_child(stage.run_and_check))
        if seen.value != REFUSED:
            mended = in_child(partial(_mend, stage, rows))
            tally.expect(f"{where}, repair and the next run", mended)
    return tally


def _indexed_stage(folder: Path) -> Stage:
    index = {"min_rows": 300, "target_recall": 0.8, "full_text": True}
    stage = Stage(folder, seed=3, index=index, reuse="table")
    for number in range(FILES):
        stage.world.write(f"f{number}.jsonl", DOCUMENTS)
    stage.prepare(stage.run_and_check)
    for name in ("f0.jsonl", "f1.jsonl", "f3.jsonl"):
        stage.world.write(name, DOCUMENTS)
    stage.world.remove("f7.jsonl")
    stage.prepare(stage.run_and_check)
    stage.save()
    return stage


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
    """Files of a room of the table that its newest version needs; of every room when it is ""."""
    dataset: lance.LanceDataset = table_of(stage.recipe).dataset()
    table = stage.lake / "docs.lance"
    manifests = sorted((table / "_versions").glob("*.manifest"), key=os.path.getmtime)
    rooms = {
        "data": [table / "data" / file.path
                 for part in dataset.get_fragments() for file in part.data_files()],
        "_indices": [
            path
            for index in dataset.describe_indices()
            for segment in index.segments
            for path in sorted((table / "_indices" / str(segment.uuid)).iterdir())
        ],
        "_versions": manifests[-1:],
    }  # fmt: skip
    return [str(path) for name, paths in rooms.items() if room in ("", name) for path in paths]


def _damage(path: Path, chance: random.Random, truncated: bool) -> None:
    """Flip a bit or cut the file; its time of change stays."""
    content, times = bytearray(path.read_bytes()), path.stat()
    place = chance.randrange(len(content))
    if truncated:
        del content[place:]
    else:
        content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _look(stage: Stage) -> str | None:
    """What ``verify --deep`` finds in a damaged table; None when it finds nothing.

    Raises ``Wrong`` when no file is named. Errors that are not embedlake's come out as they are.
    """
    try:
        status(stage.recipe)
        damages = _audit(stage)
    except EmbedlakeError:
        return REFUSED
    if not damages:
        return None
    if not any(damage.data_files or damage.index or damage.source_uris for damage in damages):
        raise Wrong(f"no file and no index is named: {damages}")
    return damages[0].what


def _mend(stage: Stage, rows: Sequence[Mapping[str, Any]]) -> None:
    repair(stage.recipe, RESOURCES, deep=True, sample_rows=SAMPLE_ROWS)
    stage.run_and_check()
    _read(stage, rows)
    raise_if(damage.what for damage in _audit(stage))


def _audit(stage: Stage) -> Sequence[Damage]:
    return audit(stage.recipe, RESOURCES, deep=True, sample_rows=SAMPLE_ROWS).damages
