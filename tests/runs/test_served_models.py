"""Runs whose model is behind a server: noise, changes, faults, queries, other engines."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest

import embedlake.lancedb_client  # noqa: F401  # makes the function known
from embedding_core.encoder.engines import ModelOptions, describe_model
from embedding_core.errors import LakeError, ModelError, Transient
from embedding_core.identity import space_id
from embedding_core.lake.query.search import Query
from embedding_core.lake.spaces.switching import promote
from embedding_core.lake.spaces.vector_columns import model_of
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.answers import ask, search
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.run import embed
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import unload
from embedding_core.runs.space.build import build_space
from embedding_core.runs.space.release_gate import gate
from embedding_core.store.retry import waited_for
from tests.driver import ONE_FILE_PER_UNIT, begin, recipe_for, rejects, rows, write_jsonl
from tests.encoder.remote.stub_engine import Reply, StubEngine, stub_engine

NOISE = 5e-3 / 48**0.5
TEXTS = {
    f"d{n}": f"document {n} speaks of {['apples', 'pears', 'plums'][n % 3]}" for n in range(12)
}


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No client of a server that is gone is left to the next test."""
    yield
    unload()


@pytest.fixture
def engine() -> Iterator[StubEngine]:
    with stub_engine() as engine:
        yield engine


def recipe_with(folder: Path, engine: StubEngine, **changes: Any) -> Recipe:
    for name in ("a", "b", "c"):
        texts = {key + name: text + " " + name for key, text in TEXTS.items()}
        write_jsonl(folder, f"{name}.jsonl", texts)
    model = {"name": engine.url, "tokenizer": "cautious", "dim": None}
    return recipe_for(folder, model=model | changes.pop("model", {}), **changes)


def vectors_of(recipe: Recipe) -> np.ndarray:
    return np.array([row["vector"] for row in rows(recipe, "vector")], np.float32)


def test_run_of_a_noisy_server_and_a_second_with_nothing_to_do(
    tmp_path: Path, engine: StubEngine
) -> None:
    engine.noise = NOISE
    recipe = recipe_with(tmp_path, engine)
    report = embed(recipe, ONE_FILE_PER_UNIT)
    assert (report.outcome, report.embedded) == ("done", 36)
    texts = [row["text"] for row in rows(recipe, "text")]
    np.testing.assert_allclose(vectors_of(recipe), engine.vectors(texts), atol=0.01)
    for _ in range(3):
        assert plan(recipe).is_empty
    write_jsonl(tmp_path, "d.jsonl", {"new": "another text"})
    assert embed(recipe, ONE_FILE_PER_UNIT).embedded == 1


def test_table_remembers_the_servers_fingerprint_and_no_token(
    tmp_path: Path, engine: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", "hunter2")
    engine.token = "hunter2"
    recipe = recipe_with(tmp_path, engine)
    embed(recipe, ONE_FILE_PER_UNIT)
    stored = model_of(table_of(recipe).dataset(), "vector")
    assert (stored.name, len(stored.revision or "")) == (engine.url, 64)
    for path in (tmp_path / "lake").rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes()


def test_token_of_every_server_goes_to_none_that_the_table_alone_names(
    tmp_path: Path, engine: StubEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the lake may name a server of theirs in the table."""
    recipe = recipe_with(tmp_path, engine)
    embed(recipe, ONE_FILE_PER_UNIT)
    host = engine.url.removeprefix("http://")
    other = recipe_for(tmp_path, release={"follow": True})  # names the model "hashing"
    followers: list[Callable[[], object]] = [
        lambda: list(search(other, Resources(), {"q": "apples"}, Query())),
        lambda: ask(table_of(recipe), "apples"),
        lambda: embed(other, ONE_FILE_PER_UNIT),
        lambda: lancedb.connect(recipe.lake.uri).open_table("docs").search("apples").to_list(),
    ]
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", "hunter2")
    engine.tokens.clear()
    for follow in followers:
        unload()
        with pytest.raises(ModelError, match=f"the table names a model at {host}.*{host}=token"):
            follow()
    assert engine.tokens == []
    assert list(search(recipe, Resources(), {"q": "apples"}, Query()))
    assert set(engine.tokens) == {"Bearer hunter2"}
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", f"everywhere,{host}=hunter3")
    engine.tokens.clear()
    assert list(search(other, Resources(), {"q": "apples"}, Query()))
    assert set(engine.tokens) == {"Bearer hunter3"}
    monkeypatch.delenv("EMBEDLAKE_ENGINE_TOKEN")
    assert ask(table_of(recipe), "apples")


def test_token_that_a_server_repeats_is_in_no_log_and_no_result(
    tmp_path: Path,
    engine: StubEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", "hunter2")
    engine.token = "hunter2"
    recipe = recipe_with(tmp_path, engine)

    def refusing(engine: StubEngine, texts: Sequence[str]) -> Reply | None:
        if len(engine.texts) > 20:
            return Reply(500, b"no quota is left for hunter2")
        is_bad = "document 1 speaks of pears a" in texts
        return Reply(400, b"the key hunter2 may not ask for this") if is_bad else None

    engine.before = refusing
    with caplog.at_level(logging.DEBUG):
        report = embed(recipe, ONE_FILE_PER_UNIT)
    assert report.outcome == "failed" and "no quota is left" in "".join(report.failures)
    assert "may not ask for this" in caplog.text
    engine.before = None
    said = f"{caplog.text} {report!r} {rejects(recipe)} {recipe!r}"
    assert "hunter2" not in said
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes()


def test_search_uses_the_server_whatever_the_recipe_names(
    tmp_path: Path, engine: StubEngine
) -> None:
    engine.noise = NOISE
    recipe = recipe_with(tmp_path, engine, model={"query_prompt": "find: "})
    embed(recipe, ONE_FILE_PER_UNIT)
    engine.texts.clear()
    other = recipe_for(tmp_path, model={"name": "hashing", "dim": 32})
    for asked in (recipe, other):
        (answer,) = search(asked, Resources(), {"q": "document 7 speaks of pears a"}, Query(k=1))
        assert answer.hits[0].doc_id.startswith("d7")
    assert engine.texts[-1][0] == "find: document 7 speaks of pears a"


def test_search_describes_the_model_once(tmp_path: Path, engine: StubEngine) -> None:
    """Eight fixed texts, then the query."""
    recipe = recipe_with(tmp_path, engine)
    embed(recipe, ONE_FILE_PER_UNIT)
    unload()
    engine.texts.clear()
    list(search(recipe, Resources(), {"q": "apples"}, Query(k=1)))
    assert [len(texts) for texts in engine.texts] == [8, 2]


def test_search_by_a_server_that_is_down_asks_it_as_often_as_it_says(
    tmp_path: Path, engine: StubEngine
) -> None:
    """Not once for the recipe and once for the table, which name the same server."""
    recipe = recipe_with(tmp_path, engine)
    embed(recipe, ONE_FILE_PER_UNIT)
    engine.looks = Reply(503)
    n_asked = []
    for look in (
        lambda: describe_model(recipe.model),
        lambda: list(search(recipe, Resources(), {"q": "apples"}, Query())),
    ):
        engine.tokens.clear()
        with waited_for(by_a_person=True), pytest.raises(Transient, match="HTTP 503"):
            look()
        n_asked.append(len(engine.tokens))
    assert n_asked[0] == n_asked[1]


def test_lancedb_client_asks_the_server(tmp_path: Path, engine: StubEngine) -> None:
    recipe = recipe_with(tmp_path, engine)
    embed(recipe, ONE_FILE_PER_UNIT)
    opened = lancedb.connect(recipe.lake.uri).open_table("docs")
    (hit,) = opened.search("document 3 speaks of apples b").limit(1).to_list()
    assert hit["doc_id"] == "d3b"


def test_server_that_changed_since_is_noticed_before_anything_is_written(
    tmp_path: Path, engine: StubEngine
) -> None:
    recipe = recipe_with(tmp_path, engine)
    embed(recipe, ONE_FILE_PER_UNIT)
    before = vectors_of(recipe)
    engine.weights = 5
    write_jsonl(tmp_path, "d.jsonl", {"new": "another text"})
    with pytest.raises(LakeError) as caught:
        embed(recipe, ONE_FILE_PER_UNIT)
    assert caught.value.action == "reembed" and "identity" in str(caught.value)
    with pytest.raises(ModelError, match="other vectors for 'stub' than those that were recorded"):
        list(search(recipe, Resources(), {"q": "apples"}, Query()))
    np.testing.assert_array_equal(vectors_of(recipe), before)


def test_server_that_changes_between_plan_and_tasks_is_refused(
    tmp_path: Path, engine: StubEngine
) -> None:
    recipe = recipe_with(tmp_path, engine)
    job, planned = begin(recipe)
    first, second, _ = work_units(planned, ONE_FILE_PER_UNIT.unit_bytes)
    embed_unit(job, chunk_unit(job, first))
    chunked = chunk_unit(job, second)
    engine.weights = 5
    with pytest.raises(ModelError, match="other vectors for 'stub' than those that were recorded"):
        chunk_unit(job, second)
    with pytest.raises(ModelError, match="other vectors for 'stub' than those that were recorded"):
        embed_unit(job, chunked)


def after(engine: StubEngine, n_requests: int, reply: Reply) -> None:
    """Every request for vectors after so many gets this answer."""

    def answer(engine: StubEngine, _texts: Sequence[str]) -> Reply | None:
        return reply if len(engine.texts) > n_requests else None

    engine.before = answer


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(401), "expired or is another server's"),
        (Reply(307, b"", {"Location": "http://elsewhere/"}), "redirects to elsewhere"),
        (Reply(200, b'{"data": []}'), "gives 0 vectors for"),
    ],
    ids=["token", "redirect", "no vectors"],
)
def test_run_that_a_person_must_help_goes_on_where_it_stopped(
    tmp_path: Path, engine: StubEngine, monkeypatch: pytest.MonkeyPatch, reply: Reply, words: str
) -> None:
    monkeypatch.setenv("EMBEDLAKE_ENGINE_TOKEN", "a")
    recipe = recipe_with(tmp_path, engine)
    resources = ONE_FILE_PER_UNIT.updated({"units_per_commit": 1, "at_once": 1})
    n_before = len(TEXTS)
    embed(recipe_with(tmp_path, engine, source={"include": ["a.jsonl"]}), resources)
    after(engine, len(engine.texts) + 6, reply)
    with pytest.raises(ModelError, match=words):
        embed(recipe, resources)
    assert n_before <= len(rows(recipe)) < 3 * len(TEXTS)
    engine.before = None
    assert embed(recipe, resources).outcome == "done"
    assert len(rows(recipe)) == 3 * len(TEXTS)
    np.testing.assert_allclose(
        vectors_of(recipe), engine.vectors([row["text"] for row in rows(recipe)]), atol=1e-3
    )


def test_run_whose_server_goes_fails_its_units_and_goes_on_later(
    tmp_path: Path, engine: StubEngine
) -> None:
    recipe = recipe_with(tmp_path, engine)
    after(engine, 3, Reply(503))
    report = embed(recipe, ONE_FILE_PER_UNIT)
    assert report.outcome == "failed"
    assert "HTTP 503: it has too much to do, or is starting" in report.failures[0]
    engine.before = None
    assert embed(recipe, ONE_FILE_PER_UNIT).outcome == "done"
    assert len(rows(recipe)) == 3 * len(TEXTS)


def test_texts_without_a_vector_are_rejects(tmp_path: Path, engine: StubEngine) -> None:
    def spoilt(vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        for row, text in enumerate(texts):
            if text == "document 1 speaks of pears a":
                vectors[row] = np.nan
            if text == "document 2 speaks of plums a":
                vectors[row] = 0
        return vectors

    def refusing(_engine: StubEngine, texts: Sequence[str]) -> Reply | None:
        too_long = "document 3 speaks of apples a" in texts
        return Reply(400, b"input is too long") if too_long else None

    engine.change, engine.before = spoilt, refusing
    recipe = recipe_with(tmp_path, engine)
    report = embed(recipe, ONE_FILE_PER_UNIT)
    assert report.outcome == "rejected"
    assert len(rows(recipe)) == 33
    assert {(r["doc_id"], r["reason"]) for r in rejects(recipe)} == {
        ("d1a", "non_finite_vector"),
        ("d2a", "zero_vector"),
        ("d3a", "refused_by_server"),
    }


def test_reembed_from_one_engine_to_another_and_back(tmp_path: Path, engine: StubEngine) -> None:
    recipe = recipe_with(tmp_path, engine)
    embed(recipe, ONE_FILE_PER_UNIT)
    with stub_engine(api="tei", served=("other",), dim=24, noise=NOISE) as other:
        section: ModelOptions = {"tokenizer": "cautious"}
        newer = ModelSpec(name=other.url, **section)  # type: ignore[arg-type]
        report = build_space(recipe, newer, Resources(), "build")
        assert (report.rows, report.missing_rows) == (36, 0)
        again = build_space(recipe, newer, Resources(), "build")
        assert (again.column, again.rows) == (report.column, 0)
        judged = gate(recipe, Resources(), report.column)
        assert judged.verdict in ("yes", "no")
        promote(table_of(recipe), report.column, "me", wait_seconds=10)
        switched = recipe.model_copy(update={"model": newer})
        assert plan(switched).is_empty
        (answer,) = search(switched, Resources(), {"q": "document 7 speaks of pears a"}, Query(k=1))
        assert answer.hits[0].doc_id.startswith("d7")
    unload()
    back = build_space(recipe, ModelSpec(name="hashing", dim=32), Resources(), "back")
    assert back.missing_rows == 0


def test_server_that_is_gone_does_not_keep_its_table(tmp_path: Path, minilm: str) -> None:
    """The rows were cut by a checkpoint's tokenizer, which is still here."""
    with stub_engine() as engine:
        recipe = recipe_with(tmp_path, engine, model={"tokenizer": minilm})
        embed(recipe, ONE_FILE_PER_UNIT)
    unload()
    newer = ModelSpec(name="hashing", dim=32)
    column = build_space(recipe, newer, Resources(), "build").column
    promote(table_of(recipe), column, "me", wait_seconds=10)
    assert plan(recipe.model_copy(update={"model": newer})).is_empty


def test_import_of_an_export_is_of_the_recorded_space(tmp_path: Path, engine: StubEngine) -> None:
    from embedding_core.exports.spec import ExportSpec
    from embedding_core.runs.exchange.exporting import export
    from embedding_core.runs.exchange.importing import import_rows

    engine.noise = NOISE
    recipe = recipe_with(tmp_path, engine)
    embed(recipe, ONE_FILE_PER_UNIT)
    export(recipe, ExportSpec(to="parquet"), str(tmp_path / "out"))
    lake = recipe.lake.model_copy(update={"uri": str(tmp_path / "new")})
    copy = recipe.model_copy(update={"lake": lake})
    report = import_rows(copy, Resources(), str(tmp_path / "out"))
    assert (report.rows, report.checked_rows > 0) == (36, True)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert report.space_id == manifest["space"]["space_id"]


def test_described_space_is_not_the_recorded_until_it_is_recognised(
    tmp_path: Path, engine: StubEngine
) -> None:
    """Noise that changes a digit of the fingerprint changes no space of a table."""
    recipe = recipe_with(tmp_path, engine)
    embed(recipe, ONE_FILE_PER_UNIT)
    recorded = table_of(recipe).open().space("vector")[0]
    engine.noise = NOISE
    fresh = {space_id(describe_model(recipe.model).space) for _ in range(5)}
    assert fresh != {recorded}
    assert plan(recipe).space_id == recorded
