"""`web.yaml`: 99 Arrow streams in chunks of 500 tokens with 10 % overlap."""

from __future__ import annotations

import re
from datetime import UTC
from itertools import groupby, pairwise
from typing import Any

import pyarrow as pa
import pytest

from embedding_core.recipe import Resources
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.units import work_units
from tests.corpora.conftest import Trial, Try, hashing_tokens
from tests.corpora.samples import WEB_SHARDS
from tests.driver import rejects, rows
from tests.embedlake.conftest import Embedlake

pytestmark = pytest.mark.slow

MAX_TOKENS, OVERLAP, MIN_NEW_TOKENS = 500, 50, 50
FILE_PER_TASK = Resources(unit="file")


def pages(trial: Trial) -> dict[tuple[str, str], dict[str, Any]]:
    """Pages by (path, row), read by pyarrow alone."""
    read = {}
    for path in sorted(trial.data.rglob("*.arrow")):
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
            for row, page in enumerate(stream.read_all().to_pylist()):
                read[str(path.relative_to(trial.data)), str(row)] = page
    return read


def test_web_chunks_cover_each_page_with_overlap(trial: Try) -> None:
    made = trial("web")
    report = made.embed(FILE_PER_TASK)
    texts = {key: page["text"] for key, page in pages(made).items() if page["text"]}
    columns = ("source_uri", "doc_id", "chunk_index", "char_start", "char_end", "n_tokens", "text")
    stored = rows(made.recipe, *columns)
    by_page = {
        key: list(chunks)
        for key, chunks in groupby(stored, key=lambda row: (made.file(row), row["doc_id"]))
    }
    assert by_page.keys() == texts.keys()
    for key, chunks in by_page.items():
        text = texts[key]
        assert [chunk["chunk_index"] for chunk in chunks] == list(range(len(chunks)))
        assert chunks[0]["char_start"] == 0 and chunks[-1]["char_end"] == len(text)
        for chunk in chunks:
            assert chunk["text"] == text[chunk["char_start"] : chunk["char_end"]]
            assert chunk["n_tokens"] == hashing_tokens(chunk["text"]) <= MAX_TOKENS
        for before, after in pairwise(chunks):
            shared = hashing_tokens(text[after["char_start"] : before["char_end"]])
            assert 0 < shared <= OVERLAP
            assert hashing_tokens(text[before["char_end"] : after["char_end"]]) >= MIN_NEW_TOKENS
        if len(chunks) == 1:
            assert hashing_tokens(text) <= MAX_TOKENS
    assert max(map(len, by_page.values())) >= 4
    assert (report.outcome, report.added, report.documents) == ("done", WEB_SHARDS, len(texts))


def test_web_metadata_is_that_of_the_page(trial: Try) -> None:
    made = trial("web")
    made.embed()
    stored = rows(made.recipe, "source_uri", "doc_id", "url", "timestamp")
    by_page = {(made.file(row), row["doc_id"]): (row["url"], row["timestamp"]) for row in stored}
    assert by_page == {
        key: (page["url"], page["timestamp"] and page["timestamp"].replace(tzinfo=UTC))
        for key, page in pages(made).items()
        if page["text"]
    }
    assert None in {timestamp for _, timestamp in by_page.values()}
    (empty,) = rejects(made.recipe)
    assert (made.file(empty), empty["position"], empty["reason"]) == (
        "train/data-00042-of-00099.arrow", 1, "empty_text",
    )  # fmt: skip


def test_web_shard_is_a_task_with_unit_file_alone(trial: Try) -> None:
    made = trial("web")
    planned = plan(made.recipe)
    units = list(work_units(planned, FILE_PER_TASK.bytes_per_unit, made.recipe.source))
    assert sorted(unit.files[0].file.uri for unit in units) == sorted(
        str(path) for path in made.data.rglob("*.arrow")
    )
    assert {len(unit.files) for unit in units} == {1} and len(units) == WEB_SHARDS
    packed = list(work_units(planned, Resources().bytes_per_unit, made.recipe.source))
    assert len(packed) == 1, "small shards are packed otherwise"


@pytest.mark.parametrize("origin", [(), ("--table",)], ids=["source", "table"])
def test_web_statistics_are_those_of_the_pages(
    origin: tuple[str, ...], trial: Try, embedlake: Embedlake
) -> None:
    made = trial("web")
    made.embed()
    texts = [page["text"] for page in pages(made).values() if page["text"]]
    lengths = sorted(map(hashing_tokens, texts))
    answer = embedlake("stats", str(made.path), *origin, "--json").json
    whole, groups = answer["whole"], answer["groups"]
    stored = rows(made.recipe, "source_uri", "n_tokens", "text")
    assert answer["files"] == len(groups) == WEB_SHARDS
    assert whole["documents"] == sum(group["documents"] for group in groups) == len(texts)
    assert whole["chunks"] == len(stored)
    assert whole["tokens"] == sum(row["n_tokens"] for row in stored)
    assert whole["reasons"] == {"empty_text": 1}
    assert whole["duplicate_chunks"] == len(stored) - len({row["text"] for row in stored})
    by_file = {group["name"]: group["chunks"] for group in groups}
    for uri, chunks in groupby(stored, key=lambda row: row["source_uri"]):
        assert by_file[uri] == len(list(chunks))
    if origin:
        return
    assert whole["duplicate_documents"] == len(texts) - len(set(texts)) == 1
    of_documents = whole["document_lengths"]
    assert (of_documents["shortest"], of_documents["longest"]) == (lengths[0], lengths[-1])
    assert of_documents["mean"] == pytest.approx(sum(lengths) / len(lengths))
    for share, length in of_documents["percentiles"].items():
        rank = -(-len(lengths) * int(share) // 100)  # the nearest rank, from 1
        assert length == lengths[rank - 1]
    for bar in of_documents["histogram"]:
        inside = [n for n in lengths if bar["shortest"] <= n <= bar["longest"]]
        assert bar["count"] == len(inside)


def test_web_recipe_says_how_a_shard_becomes_a_task(trial: Try) -> None:
    text = trial("web").path.read_text()
    assert re.search(r"--set unit=file\b", text)
