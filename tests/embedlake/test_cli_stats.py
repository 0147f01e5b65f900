"""`embedlake stats`: of the source, of a sample of it, and of the table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from embedding_core.recipe import Recipe
from tests.driver import run, write_jsonl
from tests.e2e.recipes import write_recipe
from tests.embedlake.conftest import Embedlake

LONG = " ".join(f"word{n}" for n in range(70))
RECORDS = [
    {"id": "cat", "text": "the cat sleeps on the sofa", "lang": "en"},
    {"id": "again", "text": "the cat sleeps on the sofa", "lang": "en"},
    {"id": "long", "text": LONG, "lang": "de"},
    {"id": "none", "lang": "en"},
]


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """A recipe over two folders; three of five documents have a language."""
    write_jsonl(tmp_path, "a/a.jsonl", RECORDS)
    write_jsonl(
        tmp_path, "b/b.jsonl", {"dog": "the dog barks", "copy": "the cat sleeps on the sofa"}
    )
    (tmp_path / "src" / "b" / "broken.parquet").write_bytes(b"PAR1")
    return str(write_recipe(tmp_path, source={"metadata": {"lang": "string"}}))


def by_name(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {group["name"].rpartition("/")[2]: group for group in data["groups"]}


def test_stats_counts_what_the_run_then_makes(recipe: str, embedlake: Embedlake) -> None:
    whole = embedlake("stats", recipe, "--json").json["whole"]
    report = run(Recipe.load(recipe))
    assert (whole["documents"], whole["chunks"]) == (report.documents, report.chunks) == (5, 7)
    assert whole["tokens"] == report.tokens == 6 * 3 + 70 + 3
    assert (whole["rejected"], whole["reasons"]) == (2, report.rejects)
    assert whole["dropped"] == report.dropped == 0
    assert (whole["duplicate_documents"], whole["duplicate_chunks"]) == (2, 2)
    lengths = whole["document_lengths"]
    assert (lengths["shortest"], lengths["longest"], lengths["count"]) == (3, 70, 5)
    assert lengths["percentiles"] == {"50": 6, "90": 70, "95": 70, "99": 70}
    assert [(bar["shortest"], bar["longest"], bar["count"]) for bar in lengths["histogram"]] == [
        (2, 3, 1), (4, 7, 3), (8, 15, 0), (16, 31, 0), (32, 63, 0), (64, 127, 1),
    ]  # fmt: skip
    assert whole["chunk_lengths"]["longest"] == 32


def test_stats_of_the_table_are_those_of_the_source(recipe: str, embedlake: Embedlake) -> None:
    source = embedlake("stats", recipe, "--json").json
    run(Recipe.load(recipe))
    table = embedlake("stats", recipe, "--table", "--json").json
    assert (source["origin"], table["origin"]) == ("source", "table")
    assert (source["files"], table["files"], table["files_in_source"]) == (3, 2, None)
    of_documents = {"duplicate_documents": 0, "document_lengths": None}
    assert table["whole"] == source["whole"] | of_documents
    assert table["groups"] == [group | of_documents for group in source["groups"]]


@pytest.mark.parametrize(
    ("by", "documents"),
    [
        ("file", {"a.jsonl": 3, "b.jsonl": 2, "broken.parquet": 0}),
        ("folder", {"a": 3, "b": 2}),
        ("lang", {"en": 2, "de": 1, "(no value)": 2}),
    ],
)
def test_stats_by_file_folder_or_column(
    by: str, documents: dict[str, int], recipe: str, embedlake: Embedlake
) -> None:
    run(Recipe.load(recipe))
    for arguments in ((), ("--table",)):
        groups = by_name(embedlake("stats", recipe, "--by", by, *arguments, "--json").json)
        assert {name: group["documents"] for name, group in groups.items()} == documents
        assert sum(group["rejected"] for group in groups.values()) == 2


def test_stats_by_a_column_that_is_not_declared_is_bad_usage(
    recipe: str, embedlake: Embedlake
) -> None:
    answer = embedlake("stats", recipe, "--by", "author")
    assert answer.code == 2 and "source.metadata declares (lang)" in answer.err


def test_stats_lines_show_lengths_histogram_and_groups(recipe: str, embedlake: Embedlake) -> None:
    lines = embedlake("stats", recipe).out.splitlines()
    assert lines[0] == "source of e2e: 3 files, 5 documents, 7 chunks, 91 tokens"
    assert lines[1] == "rejects: 1 missing_field, 1 corrupt_parquet"
    assert lines[2] == "repeats: 2 of 5 documents, 2 of 7 chunks have the text of an earlier one"
    assert (
        "tokens of documents: 3 to 70, mean 18.2 · 50 % ≤ 6 · 90 % ≤ 70 · 95 % ≤ 70 · 99 % ≤ 70"
        in lines
    )
    assert f"     4 to 7 │{'█' * 40} 3" in lines
    heading = next(number for number, line in enumerate(lines) if line.startswith("file "))
    assert lines[heading].split() == [
        "file", "documents", "chunks", "tokens", "median", "99", "%", "longest", "left", "out",
        "repeats",
    ]  # fmt: skip
    assert lines[heading + 1].split()[1:] == ["3", "5", "82", "6", "70", "70", "1", "1"]
    assert len({len(line) for line in lines[heading:]}) == 1


def test_stats_sample_is_bounded_spread_and_the_same_every_time(
    tmp_path: Path, embedlake: Embedlake
) -> None:
    for n in range(10):
        write_jsonl(tmp_path, f"{n}.jsonl", {f"{n}-{k}": f"text {n} {k}" for k in range(20)})
    recipe = str(write_recipe(tmp_path))
    first = embedlake("stats", recipe, "--sample", "25", "--json")
    assert first.json["whole"]["documents"] == 25
    assert sorted(group["documents"] for group in first.json["groups"]) == [2] * 5 + [3] * 5
    assert embedlake("stats", recipe, "--sample", "25", "--json").json == first.json
    few = embedlake("stats", recipe, "--sample", "3", "--json").json
    assert sorted(by_name(few)) == ["0.jsonl", "3.jsonl", "6.jsonl"]
    files = embedlake("stats", recipe, "--files", "2", "--json").json
    assert sorted(by_name(files)) == ["0.jsonl", "5.jsonl"]
    assert (files["files"], files["files_in_source"]) == (2, 10)
    assert files["whole"]["documents"] == 40
    both = embedlake("stats", recipe, "--files", "2", "--sample", "10")
    assert both.out.startswith("source of e2e: 2 of 10 files, 10 documents, 10 chunks, ")
    assert "(a sample of 10 records at most)" in both.out


@pytest.mark.slow
def test_stats_of_a_file_that_breaks_off_counts_nothing_of_it(
    tmp_path: Path, embedlake: Embedlake
) -> None:
    import gzip

    text = "".join(f'{{"id": "{n}", "text": "text {n}"}}\n' for n in range(50_000))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-2_000])
    whole = embedlake("stats", str(write_recipe(tmp_path)), "--json").json["whole"]
    assert (whole["documents"], whole["chunks"], whole["tokens"]) == (0, 0, 0)
    assert whole["reasons"] == {"truncated_compressed": 1}


def test_stats_counts_dropped_chunks(tmp_path: Path, embedlake: Embedlake) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"long": LONG, "short": "short"})
    path = write_recipe(tmp_path, model={"max_tokens": 16})
    path.write_text(path.read_text().replace("max_tokens: 32", "strategy: none"))
    whole = embedlake("stats", str(path), "--json").json["whole"]
    assert (whole["documents"], whole["chunks"], whole["dropped"]) == (2, 1, 1)
    assert whole["document_lengths"]["longest"] == 70


@pytest.mark.slow
def test_stats_tells_languages(tmp_path: Path, embedlake: Embedlake) -> None:
    texts = {
        "en": "The cat sleeps on the sofa while the children play in the garden.",
        "de": "Die Katze schläft auf dem Sofa, während die Kinder im Garten spielen.",
        "fr": "Le chat dort sur le canapé pendant que les enfants jouent dans le jardin.",
        "ar": "القطة تنام على الأريكة بينما يلعب الأطفال في الحديقة.",
        "none": "42 17 :: 3",
    }
    write_jsonl(tmp_path, "a.jsonl", texts)
    answer = embedlake("stats", str(write_recipe(tmp_path)), "--languages", "--json")
    languages = answer.json["whole"]["languages"]
    assert {languages[code] for code in ("en", "de", "fr", "ar")} == {1}


def test_stats_without_the_library_names_its_install_line(
    recipe: str, embedlake: Embedlake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding_core.runs.inputs import languages

    languages.classifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    answer = embedlake("stats", recipe, "--languages")
    assert answer.code == 1 and "pip install 'embedlake[languages]'" in answer.err


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["svg", "png"])
@pytest.mark.parametrize("arguments", [(), ("--table",)])
def test_stats_draws_a_picture(
    suffix: str, arguments: tuple[str, ...], tmp_path: Path, recipe: str, embedlake: Embedlake
) -> None:
    run(Recipe.load(recipe))
    path = tmp_path / f"corpus.{suffix}"
    assert embedlake("stats", recipe, *arguments, "--picture", str(path)).code == 0
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    if suffix == "svg":
        said = content.decode()
        assert "tokens of chunks" in said and "tokens by file" in said
        assert ("tokens of documents" in said) is not bool(arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--picture", "corpus.txt"), "ends with .svg or .png"),
        (("--picture", "no folder/corpus.svg"), "there is no folder for the picture"),
        (("--table", "--languages"), "leave out"),
        (("--table", "--sample", "3"), "leave out"),
        (("--table", "--files", "3"), "leave out"),
    ],
)
def test_stats_bad_usage(
    arguments: tuple[str, ...], said: str, recipe: str, embedlake: Embedlake
) -> None:
    answer = embedlake("stats", recipe, *arguments)
    assert answer.code == 2 and said in answer.err


def test_stats_of_a_missing_table_fails(recipe: str, embedlake: Embedlake) -> None:
    answer = embedlake("stats", recipe, "--table")
    assert answer.code == 1 and "there is no table" in answer.err


@pytest.mark.e2e
def test_stats_on_ray_are_those_of_this_process(
    tmp_path: Path, recipe: str, embedlake: Embedlake, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {str(n): f"document {n % 1000} has some words of filling " * 5 for n in range(12_000)}
    large = write_jsonl(tmp_path, "large.jsonl", texts)
    assert large.stat().st_size > 2 * 1024 * 1024
    monkeypatch.setenv("EMBEDLAKE_RESOURCES__UNIT_BYTES", "1048576")  # several slices
    here = embedlake("stats", recipe, "--json")
    monkeypatch.setenv("EMBEDLAKE_RAY_ADDRESS", "local")
    on_ray = embedlake("stats", recipe, "--json")
    assert on_ray.code == 0, on_ray.err
    assert on_ray.json == here.json
    assert here.json["whole"]["documents"] == 12_005


def test_small_sources_start_no_ray(recipe: str, embedlake: Embedlake) -> None:
    from embedlake.local.small_work import SMALL_READ_BYTES, is_little_to_read
    from embedlake.settings import Settings

    assert is_little_to_read(SMALL_READ_BYTES, Settings())
    assert not is_little_to_read(SMALL_READ_BYTES + 1, Settings())
    assert not is_little_to_read(1, Settings(ray_address="local"))
