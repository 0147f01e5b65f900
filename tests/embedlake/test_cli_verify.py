"""`embedlake verify`: what it says, its exit codes, and that a run afterwards makes it good."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe, Resources
from tests.driver import run, write_jsonl
from tests.e2e.recipes import write_recipe
from tests.embedlake.conftest import Embedlake


def embedded(folder: Path) -> Path:
    write_jsonl(folder, "a.jsonl", {"cat": "the cat sleeps on the sofa", "tax": "taxes rose again"})
    path = write_recipe(folder)
    run(Recipe.load(path))
    return path


def flip(folder: Path, old: bytes, new: bytes) -> Path:
    (file,) = (folder / "lake").rglob("docs.lance/data/*.lance")
    content = file.read_bytes()
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))
    return file


def test_verify_sound_table_says_so(tmp_path: Path, embedlake: Embedlake) -> None:
    recipe = str(embedded(tmp_path))
    answer = embedlake("verify", recipe)
    assert answer.code == 0 and "no damage found (2 rows" in answer.out
    deep = embedlake("verify", recipe, "--deep", "--json")
    assert (deep.code, deep.json["damages"], deep.json["encoded_again"]) == (0, [], 2)
    assert embedlake("verify", recipe, "--deep", "--sample", "0", "--json").json[
        "encoded_again"
    ] == 0  # fmt: skip


@pytest.mark.slow
def test_verify_flipped_bit_is_named_and_repaired(tmp_path: Path, embedlake: Embedlake) -> None:
    recipe = str(embedded(tmp_path))
    file = flip(tmp_path, b"sofa", b"sofb")
    answer = embedlake("verify", recipe, "--deep")
    assert answer.code == 1
    for named in (f"data/{file.name}", "1 row of fragment 0: 0", "src/a.jsonl", "--repair"):
        assert named in answer.out
    damaged = embedlake("verify", recipe, "--deep", "--json")
    assert (damaged.code, damaged.json["exit_code"]) == (1, 1)
    damage = damaged.json["damages"][0]
    assert (damage["kind"], damage["rows"]) == ("row", [0])
    repaired = embedlake("verify", recipe, "--deep", "--repair", "--json")
    assert (repaired.code, repaired.json["repaired"]) == (0, True)
    assert run(Recipe.load(recipe)).rows == 2
    assert embedlake("verify", recipe, "--deep").code == 0


def test_verify_lost_file_names_some_of_its_sources(tmp_path: Path, embedlake: Embedlake) -> None:
    for n in range(8):
        write_jsonl(tmp_path, f"{n}.jsonl", {"x": f"text {n}"})
    path = write_recipe(tmp_path)
    run(Recipe.load(path), Resources())
    (file,) = (tmp_path / "lake").rglob("docs.lance/data/*.lance")
    file.unlink()
    answer = embedlake("verify", str(path))
    assert answer.code == 1 and f"data/{file.name} is missing" in answer.out
    assert "  8 rows of fragment 0\n" in answer.out
    assert "src/0.jsonl" in answer.out and "src/4.jsonl and 3 more\n" in answer.out


HOLD_THE_LOCK = """
import sys
from embedding_core.runs.job import locked_for
from embedding_core.recipe import Recipe
with locked_for(Recipe.load(sys.argv[1]), "another", 0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_verify_repair_while_another_process_has_the_lock_changes_nothing_and_names_it(
    tmp_path: Path, embedlake: Embedlake, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = embedded(tmp_path)
    flip(tmp_path, b"sofa", b"sofb")
    monkeypatch.setenv("EMBEDLAKE_LOCK_WAIT_SECONDS", "0")
    version = table_of(Recipe.load(recipe)).dataset().version
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(recipe)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as holder:  # fmt: skip
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        refused = embedlake("verify", str(recipe), "--deep", "--repair", "--json")
        assert (refused.code, refused.json["kind"]) == (1, "Locked")
        assert (
            f"run another (host {socket.gethostname()}, process {holder.pid}, since" in refused.err
        )
        assert "EMBEDLAKE_LOCK_WAIT_SECONDS" in refused.err
        assert table_of(Recipe.load(recipe)).dataset().version == version
        looked = embedlake("verify", str(recipe), "--deep", "--json")  # reading needs no lock
        assert looked.json["damages"] and not looked.json["repaired"]
        holder.stdin.close()
    assert embedlake("verify", str(recipe), "--deep", "--repair", "--json").json["repaired"]


def test_verify_without_a_table_fails(tmp_path: Path, embedlake: Embedlake) -> None:
    answer = embedlake("verify", str(write_recipe(tmp_path)))
    assert answer.code == 1 and "there is no table" in answer.err
