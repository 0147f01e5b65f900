"""`embedlake verify`: what it says, its exit codes, and that a run afterwards makes it good."""

from __future__ import annotations

from pathlib import Path

from embedding_core.recipe import Recipe, Resources
from tests.driver import run, write_jsonl
from tests.e2e.recipes import write_recipe
from tests.flows.conftest import Embedlake


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


def test_verify_flipped_bit_is_named_and_repaired(tmp_path: Path, embedlake: Embedlake) -> None:
    recipe = str(embedded(tmp_path))
    file = flip(tmp_path, b"sofa", b"sofb")
    answer = embedlake("verify", recipe, "--deep")
    assert answer.code == 1
    for named in (f"data/{file.name}", "1 rows of fragment 0: 0", "src/a.jsonl", "--repair"):
        assert named in answer.out
    found = embedlake("verify", recipe, "--deep", "--json")
    assert (found.code, found.json["exit_code"]) == (1, 1)
    assert found.json["damages"][0]["kind"] == "row" and found.json["damages"][0]["rows"] == [0]
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


def test_verify_without_a_table_fails(tmp_path: Path, embedlake: Embedlake) -> None:
    answer = embedlake("verify", str(write_recipe(tmp_path)))
    assert answer.code == 1 and "there is no table" in answer.err
