"""What a change of model means for rows, runs and searches that come after it."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from embedding_core import Encoder
from embedding_core.errors import LakeError, ModelError, UsageError
from embedding_core.lake import ledger, staging
from embedding_core.lake.lock import locked
from embedding_core.lake.spaces.filling import KNOWN, fragment_rows
from embedding_core.lake.spaces.switching import promote, releases
from embedding_core.lake.spaces.vector_columns import columns, model_of
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.job import Job
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.serving import following
from embedding_core.runs.space import build as backfill
from embedding_core.runs.space import sample
from embedding_core.runs.space.build import SpaceReport, begin_space, build_space, fragments_to_fill
from embedding_core.runs.space.release import go_back, has_left
from embedding_core.runs.space.sample import (
    SampledPart,
    choose_sample,
    embed_sample,
    forget_sample,
    judge_sample,
)
from tests.driver import recipe_for, rejects, rows, run, write_jsonl

pytestmark = pytest.mark.slow

NEW = ModelSpec(name="hashing", dim=16)
RESOURCES = Resources()


def build(recipe: Recipe, model: ModelSpec = NEW) -> SpaceReport:
    return build_space(recipe, model, RESOURCES, "build")


def in_service(recipe: Recipe, model: ModelSpec = NEW) -> Recipe:
    """Put a model in service; the recipe that names it."""
    promote(table_of(recipe), build(recipe, model).column, "me")
    return recipe.model_copy(update={"model": model})


# What was cut stays cut


def test_run_after_a_tokenizer_change_cuts_nothing_anew(tmp_path: Path, tiny_qwen3: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "words of a text " * 20, "two": "short"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    before = rows(recipe, "chunk_id", "n_tokens")
    newer = in_service(recipe, ModelSpec(name=str(tiny_qwen3)))
    assert plan(newer).is_empty
    write_jsonl(tmp_path, "b.jsonl", {"three": "words of a text " * 20})
    assert run(newer).outcome == "done"
    assert rows(recipe, "chunk_id", "n_tokens")[: len(before)] == before
    counted = {row["doc_id"]: row["n_tokens"] for row in rows(recipe, "n_tokens", "doc_id")}
    assert counted["three"] == counted["one"]


def test_run_rows_longer_than_the_model_in_service_reads_are_listed(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "word " * 20})
    recipe = recipe_for(tmp_path)
    run(recipe)
    newer = in_service(recipe, ModelSpec(name="hashing", dim=32, max_tokens=8))
    ledger.drop_rejects(table_of(recipe), [one["detail"] for one in rejects(recipe)])
    write_jsonl(tmp_path, "b.jsonl", {"long": "word " * 20, "short": "word"})
    report = run(newer)
    assert (report.embedded, report.rejects) == (2, {"truncated": 1})
    (listed,) = [one for one in rejects(recipe) if one["doc_id"] == "long"]
    assert "20 tokens" in listed["detail"] and "reads 8" in listed["detail"]


def test_plan_chunk_tokenizer_named_cuts_every_file_anew(tmp_path: Path, tiny_qwen3: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "words of a text"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    other = recipe_for(tmp_path, chunk={"tokenizer": str(tiny_qwen3)})
    (planned,) = plan(other).files
    assert "tokenizer changed" in planned.why
    assert run(other).outcome == "done" and plan(other).is_empty
    assert plan(recipe).is_empty  # the table remembers it


def test_run_tokenizer_of_the_rows_gone_says_what_to_do(tmp_path: Path, tiny_qwen3: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "words of a text"})
    first = Path(shutil.copytree(tiny_qwen3, tmp_path / "first"))
    recipe = recipe_for(tmp_path, model={"name": str(first), "dim": None})
    run(recipe)
    newer = in_service(recipe)
    first.rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"chunk\.tokenizer"):
        plan(newer)
    moved = newer.model_copy(
        update={"chunk": newer.chunk.model_copy(update={"tokenizer": str(tmp_path / "elsewhere")})}
    )
    assert plan(moved).is_empty


# Which model a run takes


def test_following_takes_the_model_in_service(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "words"})
    recipe = recipe_for(tmp_path, release={"follow": True}, model={"over_length": "truncate"})
    assert following(recipe) is recipe  # no table yet
    run(following(recipe))
    in_service(recipe)
    followed = following(recipe)
    assert (followed.model.dim, followed.model.over_length) == (16, "truncate")
    write_jsonl(tmp_path, "b.jsonl", {"two": "more words"})
    assert run(followed).rows == 2
    assert not recipe_for(tmp_path).release.follow


def test_plan_after_a_promote_says_what_to_write(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    in_service(recipe)
    with pytest.raises(LakeError) as caught:
        plan(recipe)
    said = str(caught.value)
    assert 'model: {"name": "hashing", "dim": 16}' in said and "release: {follow: true}" in said
    assert caught.value.action in ("promote", "reembed")


def test_with_model_takes_a_name_or_a_section(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path)
    assert recipe.with_model(None) is recipe
    named = recipe.with_model("owner/name").model
    assert (named.name, named.dim) == ("owner/name", 32)
    section = recipe.with_model({"name": "hashing", "dim": 8}).model
    assert section == ModelSpec(name="hashing", dim=8)
    with pytest.raises(UsageError, match="dimension"):
        recipe.with_model({"name": "hashing", "dimension": 8})


def test_table_remembers_a_dated_checkpoint_not_latest(tmp_path: Path, tiny_qwen3: Path) -> None:
    shutil.copytree(tiny_qwen3, tmp_path / "models" / "2026-11-14")
    write_jsonl(tmp_path, "a.jsonl", {"one": "words"})
    latest = str(tmp_path / "models" / "latest")
    recipe = recipe_for(tmp_path, model={"name": latest, "dim": None})
    run(recipe)
    assert backfill.space_job(recipe, recipe.model, RESOURCES, "r").recipe.model.name.endswith(
        "2026-11-14"
    )
    assert model_of(table_of(recipe).dataset(), "vector").name.endswith("2026-11-14")


# Filling


def test_fragments_to_fill_are_packed_by_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "ROWS_PER_TASK", 4)
    for number in range(5):
        write_jsonl(tmp_path, f"{number}.jsonl", {f"{number}-{n}": f"text {n}" for n in range(2)})
    recipe = recipe_for(tmp_path)
    run(recipe)
    job = begin_space(recipe, NEW, RESOURCES, "build")
    groups = fragments_to_fill(job)
    assert [len(group) for group in groups] == [2, 2, 1]
    assert fragments_to_fill(job, {one for group in groups for one in group}) == []


def test_backfill_fragment_keeps_the_vectors_that_rows_have(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    newer = in_service(recipe)
    write_jsonl(tmp_path, "b.jsonl", {"two": "more words"})
    run(newer)
    table = table_of(recipe)
    maintain(newer)  # one fragment: a row with the old vector, one without
    (fragment,) = table.dataset().get_fragments()
    old = columns(table)[1].column
    before = rows(recipe, "doc_id", old)
    batches = fragment_rows(table, fragment.fragment_id, ["doc_id"], columns(table)[1].space_id)
    assert sum(batch.column(KNOWN).null_count for _, batch in batches) == 1
    report = build(recipe, recipe.model)
    assert (report.encoded, report.missing_rows) == (1, 0)
    after = rows(recipe, "doc_id", old)
    assert after[0] == before[0] and after[1][old] is not None
    expected = Encoder.load("hashing", dim=32).encode_documents(["more words"])[0]
    assert after[1][old] == pytest.approx(expected.tolist(), abs=1e-3)


# A sample


def sampled(recipe: Recipe, share: float) -> tuple[Job, list[SampledPart]]:
    job = backfill.space_job(recipe, NEW, RESOURCES, "r")
    return job, [embed_sample(job, one) for one in choose_sample(job, share)]


def many(folder: Path, **release: str) -> Recipe:
    texts = {f"d{n}": f"text {n} about thing {n * 7 % 31}" for n in range(400)}
    write_jsonl(folder, "a.jsonl", texts)
    recipe = recipe_for(folder, release=release)
    run(recipe)
    return recipe


def test_sample_is_of_its_share_and_leaves_the_table_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "FEWEST_ROWS", 10)
    monkeypatch.setattr(sample, "ROWS_PER_PART", 50)
    recipe = many(tmp_path)
    version = table_of(recipe).dataset().version
    job, parts = sampled(recipe, 0.5)
    assert len(parts) == 4 and 150 < sum(one.rows for one in parts) < 250
    again = [embed_sample(job, one).rows for one in choose_sample(job, 0.5)]
    assert again == [one.rows for one in parts]
    report = judge_sample(job, parts)
    assert report.sampled_share == pytest.approx(sum(one.rows for one in parts) / 400)
    assert (report.new.space_id, report.queries_kind) == (job.space_id, "known-item")
    assert table_of(recipe).dataset().version == version and len(columns(table_of(recipe))) == 1
    forget_sample(job)
    assert not staging.staged_units(table_of(recipe))


def test_sample_holds_the_documents_that_were_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "FEWEST_ROWS", 40)
    queries, qrels = tmp_path / "queries.jsonl", tmp_path / "qrels.tsv"
    queries.write_text("".join(f'{{"_id": "q{n}", "text": "text {n}"}}\n' for n in range(20)))
    lines = [f"q{n}\td{n * 11}\t1\n" for n in range(20)]
    qrels.write_text("query\tdocument\tgrade\n" + "".join(lines))
    recipe = many(tmp_path, queries=str(queries), qrels=str(qrels))
    job, parts = sampled(recipe, 0.01)
    report = judge_sample(job, parts)
    assert (report.queries, report.queries_kind) == (20, "labelled")
    assert 40 <= report.rows < 100


@pytest.mark.parametrize("share", [0.0, -1, 5])
def test_sample_of_no_share_is_refused(tmp_path: Path, share: float) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    with pytest.raises(UsageError, match="5%"):
        choose_sample(backfill.space_job(recipe, NEW, RESOURCES, "r"), share)


# What leaves


def test_has_left_until_a_space_is_back_in_service(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    old = backfill.space_job(recipe, recipe.model, RESOURCES, "r")
    new = backfill.space_job(recipe, NEW, RESOURCES, "r")
    assert (has_left(old), has_left(new)) == (False, False)
    in_service(recipe)
    assert (has_left(old), has_left(new)) == (True, False)
    go_back(recipe, RESOURCES, "someone")
    assert (has_left(old), has_left(new)) == (False, True)


def test_maintain_retires_what_left_service_long_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"one": "words"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    newer = in_service(recipe)
    assert maintain(newer).retired == ()
    soon = newer.model_copy(
        update={"release": newer.release.model_copy(update={"keep_previous_days": 0})}
    )
    with locked(table_of(recipe), "a build", 0, kind="build"):
        assert maintain(soon).retired == ()
    later = datetime.now(UTC) + timedelta(seconds=2)  # times are kept to the second
    assert [release.action for release in maintain(soon, later).retired] == ["retire"]
    assert [column.column for column in columns(table_of(recipe))] == ["vector"]
    assert releases(table_of(recipe).open())[0].by == "maintenance"
