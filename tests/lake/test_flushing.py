"""What is on the disk when a commit names it, and when a run says that it is done."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from embedding_core.lake.ledger import ledger_table, rejects_table
from embedding_core.lake.spaces.switching import promote
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.space.build import build_space
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec
from tests.driver import recipe_for, run, write_jsonl

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="Linux alone tells the path of a descriptor"
)

INDEX = {"min_rows": 256, "target_recall": 0.5}


@dataclass
class Flushes:
    """Paths that were flushed, each with what stood beside it when it was flushed last."""

    beside: dict[Path, set[Path]] = field(default_factory=dict)

    def note(self, descriptor: int) -> None:
        """Called in place of a flush."""
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        table = next((folder for folder in path.parents if folder.suffix == ".lance"), path.parent)
        self.beside[path] = set(table.rglob("*"))

    def lacking(self, table: Table) -> set[str]:
        """Files of the newest version that are not on the disk, or that its manifest came before,
        with their folders."""
        root, dataset = Path(table.uri), table.dataset()
        manifest = root / "_versions" / table.newest_manifest()[1]
        metadata = [fragment.metadata for fragment in dataset.get_fragments()]
        named = [root / "data" / file.path for fragment in metadata for file in fragment.files]
        named += [
            root / fragment.deletion_file.path(fragment.id)
            for fragment in metadata
            if fragment.deletion_file is not None
        ]
        late = {path for path in named if manifest in self.beside.get(path, {manifest})}
        indexes = [
            path
            for index in dataset.describe_indices()
            for segment in index.segments
            for path in (root / "_indices" / str(segment.uuid)).iterdir()
        ]
        needed = {*named, *indexes, manifest}
        needed |= {path.parent for path in needed}
        return {str(path.relative_to(root)) for path in late | (needed - self.beside.keys())}


@pytest.fixture
def flushes(monkeypatch: pytest.MonkeyPatch) -> Flushes:
    noted = Flushes()
    monkeypatch.setattr(os, "fsync", noted.note)
    return noted


def changed_files(recipe: Recipe, folder: Path) -> None:
    run(recipe)
    write_jsonl(folder, "a.jsonl", {f"x{n}": f"another {n}" for n in range(300)})
    run(recipe)


def compacted(recipe: Recipe, folder: Path) -> None:
    changed_files(recipe, folder)
    assert not maintain(recipe).problems


def switched(recipe: Recipe, folder: Path) -> None:
    run(recipe)
    build_space(recipe, ModelSpec(name="hashing", dim=16), Resources(), "a build")
    (column,) = (
        name for name in table_of(recipe).dataset().schema.names if name.startswith("vector__")
    )
    promote(table_of(recipe), column, "somebody")


@pytest.mark.parametrize("work", [changed_files, compacted, switched])
def test_whatever_a_version_names_is_on_the_disk_before_it_and_itself_at_the_end(
    tmp_path: Path, flushes: Flushes, work: Callable[[Recipe, Path], None]
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {f"x{n}": f"text {n}" for n in range(300)})
    write_jsonl(tmp_path, "b.jsonl", {"y": "one", "z": " "})
    recipe = recipe_for(tmp_path, index=INDEX, maintain={"small_fragments": 2})
    work(recipe, tmp_path)
    table = table_of(recipe)
    for each in (table, ledger_table(table), rejects_table(table)):
        assert flushes.lacking(each) == set(), each.name


def test_file_has_its_content_on_the_disk_before_its_name_and_then_its_name(
    tmp_path: Path, flushes: Flushes
) -> None:
    target = tmp_path / "record.json"
    storage.write_bytes(str(target), b"{}", StorageSpec())
    (written, folder) = flushes.beside
    assert target not in flushes.beside[written] and folder == tmp_path


def test_flush_reaches_the_disk_by_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    storage.flush([str(tmp_path / "a"), "s3://bucket/key"])
    with pytest.raises(FileNotFoundError):
        storage.flush([str(tmp_path / "b")])
