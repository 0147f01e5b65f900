"""Two exports to a folder, two imports into a table and four writers of feedback, at once."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from embedding_core.exports.manifest import MANIFEST, Manifest
from embedding_core.exports.spec import ExportSpec
from embedding_core.lake import lock
from embedding_core.lake.readers.feedback import Feedback, append_feedback, read_feedback
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from embedding_core.runs.exchange.exporting import export
from embedding_core.runs.exchange.importing import import_rows
from experiments.faults.child import in_child
from experiments.faults.injections import Experiment, Point, Tally, numbered
from experiments.faults.stage import RESOURCES, Stage, Wrong
from experiments.races.runs import LOCK
from experiments.races.together import at_once

ROUNDS = 100
FILES, DOCUMENTS = 6, 5
REFUSED = ("UsageError", "SetupError", "LakeError", "Transient")
WAYS: tuple[Mapping[str, bool], ...] = ({}, {"overwrite": True}, {"resume": True})
"""How an export deals with what is at its destination."""
SPECS = (
    ExportSpec(to="parquet", shard_rows=7),
    ExportSpec(to="parquet", shard_rows=7, columns=("text", "doc_id")),
    ExportSpec(to="jsonl", shard_rows=11),
)
WRITERS, OPINIONS = 4, 5


def two_exports(folder: Path) -> Experiment:
    """Two exports begin at once in one folder."""
    stage, target = _stage(folder), folder / "export"

    def inject(point: Point, tally: Tally) -> None:
        chance = random.Random(point.number)
        shutil.rmtree(target, ignore_errors=True)
        if chance.random() < 0.5:
            stage.prepare(partial(_export, stage.recipe, target, chance.choice(SPECS), {}))
        asked = [(chance.choice(SPECS), chance.choice(WAYS)) for _ in range(2)]
        endings = at_once([partial(_export, stage.recipe, target, *each) for each in asked])
        tally.injections += 1
        tally.endings.update(ending.kind for ending in endings)
        where = str([(spec.to, way) for spec, way in asked])
        for ending in endings:
            if ending.kind not in ("done", *REFUSED):
                tally.violations.append(f"{where}: {ending.error or ending.kind}")
        tally.expect(where, in_child(partial(_check_export, target)))
        last = partial(_export, stage.recipe, target, SPECS[0], {"overwrite": True})
        tally.expect(f"{where}, a later export", in_child(last))
        tally.expect(f"{where}, after it", in_child(partial(_check_export, target, is_there=True)))

    return Experiment(
        injects="two exports to one folder at once, new, over another, or going on",
        must_hold="a folder with a manifest holds what it says; each export is complete or "
        "refused, and a later one is complete",
        stage=stage,
        points=numbered("round", ROUNDS),
        inject=inject,
        is_drawn=True,
    )


def two_imports(folder: Path) -> Experiment:
    """Two imports begin at once into one table."""
    stage, origin = _stage(folder), folder / "export"
    stage.prepare(partial(_export, stage.recipe, origin, SPECS[0], {}))
    content = stage.recipe.model_dump(mode="json")
    copy = Recipe.load(content | {"lake": content["lake"] | {"uri": str(folder / "copy")}})

    def inject(point: Point, tally: Tally) -> None:
        shutil.rmtree(folder / "copy", ignore_errors=True)
        endings = at_once([partial(_import, copy, origin)] * 2)
        tally.injections += 1
        tally.endings.update(ending.kind for ending in endings)
        kinds = sorted(ending.kind for ending in endings)
        if kinds not in (["LakeError", "done"], ["Locked", "done"]):
            tally.violations.append(str([ending.error or ending.kind for ending in endings]))
        tally.expect("the copy", in_child(partial(_check_copy, stage.recipe, copy)))

    return Experiment(
        injects="two imports into one table at once",
        must_hold="one makes the table, the other is refused",
        stage=stage,
        points=numbered("round", ROUNDS),
        inject=inject,
        is_drawn=True,
    )


def writers_of_feedback(folder: Path) -> Experiment:
    """Four processes give opinions at once; the first makes the table."""
    stage = _stage(folder)
    stage.save()

    def inject(_point: Point, tally: Tally) -> None:
        stage.put_back()
        endings = at_once([partial(_give_opinions, stage, writer) for writer in range(WRITERS)])
        tally.injections += 1
        tally.endings.update(ending.kind for ending in endings)
        for ending in endings:
            tally.expect("a writer", ending)
        tally.expect("the opinions", in_child(partial(_check_opinions, stage)))

    return Experiment(
        injects="four writers of feedback at once",
        must_hold="each opinion is there once, those of a writer in their order",
        stage=stage,
        points=numbered("round", ROUNDS),
        inject=inject,
        is_drawn=True,
    )


def _stage(folder: Path) -> Stage:
    stage = Stage(folder, seed=8)
    for number in range(FILES):
        stage.world.write(f"f{number}.jsonl", DOCUMENTS)
    stage.prepare(stage.run_and_check)
    return stage


def _export(recipe: Recipe, target: Path, spec: ExportSpec, way: Mapping[str, bool]) -> None:
    export(recipe, spec, str(target), **way)


def _check_export(target: Path, is_there: bool = False) -> None:
    """Raise ``Wrong`` when a manifest does not say what is beside it."""
    if not (target / MANIFEST).exists():
        if is_there:
            raise Wrong("there is no manifest")
        return
    manifest = Manifest.from_json((target / MANIFEST).read_bytes(), str(target))
    digests = {file.path: file.sha256 for file in manifest.files}
    for path, digest in digests.items():
        content = (target / path).read_bytes() if (target / path).exists() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise Wrong(f"{path} is not what the manifest says")
    if is_there:
        paths = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
        if surplus := paths - digests.keys() - {MANIFEST}:
            raise Wrong(f"the manifest does not name {sorted(surplus)}")


def _import(recipe: Recipe, origin: Path) -> None:
    lock.TIMING = LOCK
    import_rows(recipe, RESOURCES, str(origin))


def _check_copy(recipe: Recipe, copy: Recipe) -> None:
    if not table_of(copy).to_arrow().equals(table_of(recipe).to_arrow()):
        raise Wrong("what was imported differs from what was exported")


def _give_opinions(stage: Stage, writer: int) -> None:
    for number in range(OPINIONS):
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
        opinion = Feedback(at, f"writer {writer}", f"d{number}", "click")
        append_feedback(table_of(stage.recipe), [opinion])


def _check_opinions(stage: Stage) -> None:
    by_writer: dict[str, list[str]] = {}
    for opinion in read_feedback(table_of(stage.recipe)):
        by_writer.setdefault(opinion.query, []).append(opinion.doc_id)
    expected = [f"d{number}" for number in range(OPINIONS)]
    if by_writer != {f"writer {writer}": expected for writer in range(WRITERS)}:
        raise Wrong(f"the opinions are {by_writer}")
