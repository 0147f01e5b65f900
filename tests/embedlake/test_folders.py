"""Full folders are named in one line before anything starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_core.errors import SetupError
from embedding_core.recipe import Resources
from embedlake.cli.doctor import diagnose
from embedlake.execution.runner import Runner
from embedlake.local import stack
from embedlake.local.folders import LEAST_FREE_BYTES, MIB, check_folders
from embedlake.settings import Settings
from tests.driver import write_jsonl
from tests.e2e.recipes import write_recipe
from tests.embedlake.conftest import Embedlake

VARIABLES = ("TMPDIR", "EMBEDLAKE_HOME", "PREFECT_HOME")
NOWHERE = "/proc/embedlake"
"""Root, too, can make no folder there."""
FAILED = 1


@pytest.fixture(autouse=True)
def roomy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, str(tmp_path))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_folders_with_room_say_how_much_is_free_and_are_left_as_they_were(tmp_path: Path) -> None:
    said = check_folders(Settings(home=tmp_path / "not" / "there" / "yet"))
    assert all(variable in said for variable in VARIABLES) and "MiB free" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", VARIABLES)
def test_folder_that_cannot_be_written_is_named_with_its_variable(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, NOWHERE)
    with pytest.raises(SetupError) as caught:
        check_folders(Settings())
    said = str(caught.value)
    assert said.startswith(f"{variable} ({NOWHERE}) cannot be written") and "\n" not in said
    assert f"set {variable} to a folder" in said


def test_every_bad_folder_is_in_the_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, NOWHERE)
    with pytest.raises(SetupError, match=r"set TMPDIR and EMBEDLAKE_HOME and PREFECT_HOME to"):
        check_folders(Settings())


@pytest.mark.parametrize("used_bytes", [0, 64 * 1024])
@pytest.mark.parametrize("variable", VARIABLES)
def test_folder_on_a_disk_that_is_full_or_nearly_so_is_named(
    variable: str, used_bytes: int, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tiny_disk))
    (tiny_disk / "filler").write_bytes(bytes(used_bytes))
    with pytest.raises(SetupError) as caught:
        check_folders(Settings())
    said = str(caught.value)
    assert f"{variable} ({tiny_disk})" in said
    assert ("No space left" if used_bytes else "has 0.1 MiB free") in said
    assert f"{LEAST_FREE_BYTES // MIB} MiB free" in said


def test_nothing_starts_where_there_is_no_room(
    embedlake: Embedlake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    recipe = write_recipe(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", NOWHERE)
    for command in (("embed", str(recipe)), ("up",)):
        answer = embedlake(*command)
        assert answer.code == FAILED
        assert answer.err.startswith(f"embedlake: PREFECT_HOME ({NOWHERE})")
        assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "home").exists() and not (tmp_path / "lake").exists()
    with pytest.raises(SetupError, match="PREFECT_HOME"):
        Runner().prepare(Settings(), Resources())
    with pytest.raises(SetupError, match="PREFECT_HOME"):
        stack.up(Settings())


def test_doctor_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    [good] = [check for check in diagnose(Settings(), None) if check.name == "folders"]
    assert good.ok and "MiB free" in good.detail
    monkeypatch.setenv("TMPDIR", NOWHERE)
    [bad] = [check for check in diagnose(Settings(), None) if check.name == "folders"]
    assert not bad.ok and f"TMPDIR ({NOWHERE}) cannot be written" in bad.detail
