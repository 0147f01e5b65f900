"""`embedlake peek`: what a file becomes, without a model that is loaded and without a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedding_core.recipe import Recipe
from tests.driver import run, texts, write_jsonl
from tests.e2e.recipes import write_recipe
from tests.embedlake.conftest import Embedlake
from tests.sources.stub_hub import DATASET, stub_hub

LONG = " ".join(f"word{n}" for n in range(70))
RECORDS = [
    {"id": "cat", "text": "the cat sleeps\non the sofa", "year": 2020},
    {"id": "long", "text": LONG, "year": 2021},
    {"id": "none", "year": 2022},
    {"id": "cat", "text": "another cat", "year": 2023},
]


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A recipe over two files below a folder and a file that it does not read."""
    write_jsonl(tmp_path, "a.jsonl", RECORDS)
    write_jsonl(tmp_path, "sub/b.jsonl", {"dog": "the dog barks"})
    write_jsonl(tmp_path, "sub/_hidden.jsonl", {"no": "never"})
    return str(write_recipe(tmp_path, source={"metadata": {"year": "int"}}))


def test_peek_shows_records_texts_chunks_and_rejects(recipe: str, embedlake: Embedlake) -> None:
    answer = embedlake("peek", recipe, "--records", "4")
    assert answer.code == 0
    shown = answer.out.splitlines()
    assert shown[0].endswith("/src/a.jsonl · " + f"{size_of(recipe, 'a.jsonl'):,} bytes")
    assert shown[1] == "cut by tokens, max_tokens 32, counted by hashing, which takes 8,192 tokens"
    for line in (
        "record 0 · id 'cat' · 26 characters · 1 chunk",
        "  year: 2020",
        "  | the cat sleeps",
        "  | on the sofa",
        "  chunk 0 · characters 0 to 26 · 6 tokens",
        "    the cat sleeps on the sofa",
        "record 2 · id 'none' · rejected",
        "record 3 · id 'cat' · rejected",
    ):
        assert line in shown
    assert any(line.startswith("  reject: missing_field: field 'text'") for line in shown)
    assert any(line.startswith("  reject: duplicate_id: id 'cat'") for line in shown)
    assert "more records" not in answer.out


def uncut_recipe(folder: Path, **changes: Any) -> str:
    """A recipe whose documents are a chunk each."""
    path = write_recipe(folder, **changes)
    path.write_text(path.read_text().replace("max_tokens: 32", "strategy: none"))
    return str(path)


def size_of(recipe: str, name: str) -> int:
    return (Path(recipe).parent / "src" / name).stat().st_size


def test_peek_makes_no_table_and_its_chunks_are_those_of_the_run(
    recipe: str, embedlake: Embedlake
) -> None:
    peeked = embedlake("peek", recipe, "a.jsonl", "--records", "9", "--json").json
    assert not (Path(recipe).parent / "lake").exists()
    run(Recipe.load(recipe))
    chunks = [chunk for record in peeked["records"] for chunk in record["chunks"]]
    assert len(chunks) == 4  # 26 characters, and 70 tokens in windows of 32
    assert sorted(chunk["text"] for chunk in chunks) == sorted(texts(Recipe.load(recipe))[:-1])
    long = peeked["records"][1]
    for chunk in long["chunks"]:
        assert long["text"][chunk["char_start"] : chunk["char_end"]] == chunk["text"]
        assert chunk["n_tokens"] <= 32
    assert (long["doc_id"], long["position"], long["metadata"]) == ("long", 1, {"year": 2021})
    assert (peeked["has_more"], peeked["problem"]) == (False, None)


def test_peek_shows_a_few_records_and_says_that_there_are_more(
    recipe: str, embedlake: Embedlake
) -> None:
    answer = embedlake("peek", recipe, "--records", "1")
    assert answer.out.count("\nrecord ") == 1
    assert answer.out.splitlines()[-1] == "… more records in the file (--records N shows N)"
    assert embedlake("peek", recipe, "--records", "1", "--json").json["has_more"]


@pytest.mark.parametrize("name", ["sub/b.jsonl", "./sub/b.jsonl", "src/sub/b.jsonl", "{uri}"])
def test_peek_file_is_named_by_uri_or_path(name: str, recipe: str, embedlake: Embedlake) -> None:
    uri = str(Path(recipe).parent / "src" / "sub" / "b.jsonl")
    peeked = embedlake("peek", recipe, name.format(uri=uri), "--json").json
    assert peeked["source_uri"] == uri
    assert [record["doc_id"] for record in peeked["records"]] == ["dog"]


def test_peek_document_is_found_by_its_id_in_any_file(recipe: str, embedlake: Embedlake) -> None:
    for made_table in (False, True):
        peeked = embedlake("peek", recipe, "dog", "--json").json
        assert peeked["source_uri"].endswith("/src/sub/b.jsonl"), made_table
        assert [record["doc_id"] for record in peeked["records"]] == ["dog"]
        run(Recipe.load(recipe))


def test_peek_document_of_a_file(recipe: str, embedlake: Embedlake) -> None:
    peeked = embedlake("peek", recipe, "a.jsonl", "--doc", "long", "--json").json
    assert [record["position"] for record in peeked["records"]] == [1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere.jsonl", "--doc", "dog"), "'nowhere.jsonl' is no file of"),
        (("a.jsonl", "--doc", "dog"), "a.jsonl has no document 'dog'"),
    ],
)
def test_peek_document_that_is_not_in_the_named_file_is_bad_usage(
    arguments: tuple[str, ...], said: str, recipe: str, embedlake: Embedlake
) -> None:
    answer = embedlake("peek", recipe, *arguments)
    assert answer.code == 2 and said in answer.err


@pytest.mark.parametrize("name", ["nowhere.jsonl", "sub/_hidden.jsonl", "b.jsonl.gz"])
def test_peek_unknown_name_is_bad_usage(name: str, recipe: str, embedlake: Embedlake) -> None:
    answer = embedlake("peek", recipe, name, "--json")
    assert answer.code == 2
    assert f"{name!r} is neither a file of" in answer.json["error"]
    assert "embedlake plan RECIPE" in answer.json["error"]


def test_peek_bad_file_says_why_after_the_records_before_the_fault(
    tmp_path: Path, recipe: str, embedlake: Embedlake
) -> None:
    (tmp_path / "src" / "c.parquet").write_bytes(b"PAR1 and nothing more")
    answer = embedlake("peek", recipe, "c.parquet")
    assert answer.code == 0
    assert "the file is rejected as a whole: corrupt_parquet:" in answer.out


def test_peek_empty_source_fails_and_empty_file_has_no_records(
    tmp_path: Path, embedlake: Embedlake
) -> None:
    (tmp_path / "src").mkdir()
    recipe = str(write_recipe(tmp_path))
    nothing = embedlake("peek", recipe)
    assert nothing.code == 1 and "nothing to read in" in nothing.err
    (tmp_path / "src" / "a.jsonl").touch()
    assert embedlake("peek", recipe).out.splitlines()[-1] == "no records in the file"


def test_peek_first_file_is_one_that_holds_something_and_no_other_is_read(
    tmp_path: Path, embedlake: Embedlake
) -> None:
    write_jsonl(tmp_path, "b.jsonl", {"b": "text"})
    (tmp_path / "src" / "a.jsonl").touch()
    (tmp_path / "src" / "c.jsonl").mkdir()
    peeked = embedlake("peek", str(write_recipe(tmp_path)), "--json").json
    assert peeked["source_uri"].endswith("/b.jsonl")


def test_peek_long_text_and_control_characters_stay_readable(
    tmp_path: Path, embedlake: Embedlake
) -> None:
    write_jsonl(tmp_path, "a.jsonl", [{"id": "x", "text": "\x1b[2J" + "long " * 1_000}])
    recipe = uncut_recipe(tmp_path)
    answer = embedlake("peek", recipe)
    assert "\x1b" not in answer.out and "characters more" in answer.out
    assert len(answer.out) < 2_000
    assert len(json.loads(embedlake("peek", recipe, "--json").out)["records"][0]["text"]) == 5_004


def test_peek_dropped_chunk_stands_with_its_reason(tmp_path: Path, embedlake: Embedlake) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"long": LONG})
    answer = embedlake("peek", uncut_recipe(tmp_path, model={"max_tokens": 16}))
    assert "0 chunks" in answer.out and "  reject: over_length: 70 tokens" in answer.out


def test_peek_of_a_remote_source_fetches_one_file(tmp_path: Path, embedlake: Embedlake) -> None:
    with stub_hub() as hub:
        hub.commit({f"{n}.jsonl": b'{"text": "number %d"}\n' % n for n in range(3)})
        uri = f"hf://datasets/{DATASET}"
        storage = hub.storage.model_dump()
        path = write_recipe(tmp_path, source={"uri": uri, "storage": storage, "id": None})
        recipe = str(path)
        for name in (["1.jsonl"], [f"{uri}/1.jsonl"], []):
            hub.requests.clear()
            peeked = embedlake("peek", recipe, *name, "--json").json
            number = "1" if name else "0"
            assert peeked["records"][0]["text"] == f"number {number}"
            assert hub.reads and all(read.endswith(f"/{number}.jsonl") for read in hub.reads)
        hub.requests.clear()
        unknown = embedlake("peek", recipe, "some id", "--json")
        assert unknown.code == 2 and "is not searched for ids" in unknown.json["error"]
        assert hub.reads == []
