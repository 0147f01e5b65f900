"""`embedlake report`, `map` and `view`: files written, messages that help, a viewer started."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from embedding_core.recipe import Recipe
from tests.driver import recipe_for
from tests.embedlake.conftest import Embedlake
from tests.look.tables import documents, embedded


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return embedded(tmp_path, documents(20))


def test_report_writes_a_page_and_says_where(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDLAKE_PRICE_PER_HOUR", "3")
    out = tmp_path / "page.html"
    done = embedlake(
        "report", recipe.model_dump_json(), "-o", str(out), "--color", "lang", "--sample", "10",
        "--json",
    )  # fmt: skip
    assert (done.code, done.json["page"], done.json["vectors"]["rows"]) == (0, str(out), 10)
    assert done.json["price_per_hour"] == 3 and "points" not in done.json["vectors"]
    assert out.read_text().startswith("<!doctype html>")
    assert "EMBEDLAKE_PRICE_PER_HOUR" in out.read_text()
    said = embedlake("report", recipe.model_dump_json(), "-o", str(out))
    assert said.out.splitlines()[-1] == f"page: {out}"


def test_report_by_tsne_has_other_places_than_by_pca(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path
) -> None:
    pages = {}
    for name in ("pca", "tsne"):
        out = tmp_path / f"{name}.html"
        answer = embedlake(
            "report", recipe.model_dump_json(), "-o", str(out), "--projection", name, "--json"
        )
        assert answer.code == 0 and answer.json["vectors"]["method"] == name
        pages[name] = out.read_text()
    assert "Placed by t-SNE" in pages["tsne"] and "Placed by" not in pages["pca"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--color", "nope"], 2, "no field 'nope' to colour by; the table has lang, year"),
        (["--column", "text"], 2, "columns of vectors are vector"),
        (["--projection", "mds"], 2, "no projection 'mds'; use pca, tsne, umap"),
        (["--sample", "0"], 2, "0 is not in the range"),
        (["-o", "none/page.html"], 2, "name a file in a folder that exists"),
        (["-o", "/dev/null"], 2, "name a file in a folder that exists"),
        (["-o", "."], 2, "name a file in a folder that exists"),
        (["-o", "recipe.yaml"], 2, "is no page that embedlake wrote, so it is not overwritten"),
    ],
)
def test_report_that_cannot_be_made_says_why_and_writes_nothing(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], code: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.model_dump_json())
    before = set(tmp_path.iterdir())
    answer = embedlake("report", str(path), *arguments)
    assert (answer.code, answer.out) == (code, "") and said in answer.err
    assert set(tmp_path.iterdir()) == before
    assert path.read_text() == recipe.model_dump_json()


@pytest.mark.parametrize("command", ["report", "map"])
def test_command_without_a_table_says_what_to_run(
    embedlake: Embedlake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = embedlake(command, recipe_for(tmp_path).model_dump_json())
    assert answer.code == 1 and "there is no table 'docs'" in answer.err
    assert "embedlake embed RECIPE" in answer.err and not list(tmp_path.glob("*.html"))


def test_map_writes_rows_and_says_how_to_look_at_them(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path
) -> None:
    out = tmp_path / "map.parquet"
    done = embedlake("map", recipe.model_dump_json(), "--out", str(out), "--sample", "5", "--json")
    assert (done.code, done.json["rows"], done.json["fitted_rows"]) == (0, 21, 5)
    assert pq.read_metadata(out).num_rows == 21
    assert f"uvx embedding-atlas {out} --text text --x x --y y" in done.err
    again = embedlake("map", recipe.model_dump_json(), "--out", str(out))
    assert again.code == 0, "a map replaces another"
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text("name: docs")
    refused = embedlake("map", recipe.model_dump_json(), "--out", str(recipe_file))
    assert refused.code == 2 and "is no map that embedlake wrote" in refused.err
    assert recipe_file.read_text() == "name: docs"


def test_map_on_ray_has_the_bytes_of_one_made_here(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, on_ray = tmp_path / "here.parquet", tmp_path / "ray.parquet"
    assert embedlake("map", recipe.model_dump_json(), "--out", str(here)).code == 0
    monkeypatch.setenv("EMBEDLAKE_RAY_ADDRESS", "local")
    answer = embedlake("map", recipe.model_dump_json(), "--out", str(on_ray))
    assert answer.code == 0, answer.err
    assert here.read_bytes() == on_ray.read_bytes()


def viewer(folder: Path, code: int) -> Path:
    """A program called as the viewer, which keeps its arguments; the real one has 560 MB."""
    folder.mkdir()
    program = folder / "embedding-atlas"
    program.write_text(
        f"#!{sys.executable}\nimport json, pathlib, sys\n"
        f"pathlib.Path({str(folder / 'arguments.json')!r}).write_text(json.dumps(sys.argv[1:]))\n"
        f"sys.exit({code})\n"
    )
    program.chmod(0o755)
    return folder / "arguments.json"


def test_view_makes_a_map_and_starts_the_viewer_on_loopback(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = viewer(tmp_path / "bin", 0)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    done = embedlake("view", recipe.model_dump_json(), "--port", "6001", "--json")
    made = tmp_path / "home" / "maps" / "docs.parquet"
    assert done.code == 0 and pq.read_metadata(made).num_rows == 21
    arguments = json.loads(kept.read_text())
    assert arguments == [
        str(made), "--text", "text", "--x", "x", "--y", "y", "--host", "127.0.0.1",
        "--port", "6001",
    ]  # fmt: skip
    assert done.json["command"][1:] == arguments
    again = embedlake("view", recipe.model_dump_json(), "--map", str(made))
    assert again.code == 0 and "making the map" not in again.err


def test_view_with_a_viewer_that_fails_says_so(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer(tmp_path / "bin", 3)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    answer = embedlake("view", recipe.model_dump_json())
    assert answer.code == 1 and "embedding-atlas ended with 3" in answer.err


def test_view_without_a_viewer_says_how_to_get_one(
    embedlake: Embedlake, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = embedlake("view", recipe.model_dump_json())
    assert (answer.code, answer.out) == (1, "")
    for line in ("uv tool install embedding-atlas", "embedlake map RECIPE", "embedlake report"):
        assert line in answer.err


def test_view_of_a_file_that_is_no_map_says_so(
    embedlake: Embedlake, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer(tmp_path / "bin", 0)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    other = tmp_path / "other.parquet"
    other.write_text("no parquet")
    answer = embedlake("view", recipe.model_dump_json(), "--map", str(other))
    assert answer.code == 1 and "is no map that embedlake wrote" in answer.err
