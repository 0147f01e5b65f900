"""The release gate over real tables and over samples of rows."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedding_core import Encoder
from embedding_core.errors import LakeError, UsageError
from embedding_core.lake import schema
from embedding_core.lake.index import tuning
from embedding_core.lake.index.vector import refresh_vector_index
from embedding_core.lake.scans import to_judged
from embedding_core.lake.spaces.filling import PlacedVectors, fill_fragment
from embedding_core.lake.spaces.switching import promote
from embedding_core.lake.spaces.vector_columns import columns
from embedding_core.lake.table import table_of
from embedding_core.protocols import Corpus, JudgedRows, Vectors
from embedding_core.quality.judgement import GateReport, Side, judge
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.reports.look.overview import OverviewView
from embedding_core.reports.pages.table_page import table_page
from embedding_core.runs import job
from embedding_core.runs.job import load
from embedding_core.runs.look.overview import look_at
from embedding_core.runs.space.build import begin_space, build_space
from embedding_core.runs.space.evaluation import evaluate
from embedding_core.runs.space.release import record_refusal
from embedding_core.runs.space.release_gate import gate
from embedding_core.runs.space.sides import side_of
from tests.driver import recipe_for, run, write_jsonl

pytestmark = pytest.mark.slow

RESOURCES = Resources()
OLD, NEW = ModelSpec(name="hashing", dim=256), ModelSpec(name="hashing", dim=128)
N_DOCUMENTS = 300
CHANCE = np.random.default_rng(0)
WORDS = ["".join(CHANCE.choice(list("abcdefghijklmnop"), 6)) for _ in range(500)]
TEXTS = {
    f"d{n}": " ".join(CHANCE.choice(WORDS, 8)) + ". " + " ".join(CHANCE.choice(WORDS, 20))
    for n in range(N_DOCUMENTS)
}


def labelled(folder: Path, documents: dict[str, str] | None = None) -> dict[str, str]:
    """A release section: some words of every fifth document must find it."""
    judged = list((documents or TEXTS).items())[::5]
    queries, qrels = folder / "queries.jsonl", folder / "qrels.tsv"
    asked = [{"_id": f"q-{name}", "text": " ".join(text.split()[9:14])} for name, text in judged]
    queries.write_text("".join(json.dumps(one) + "\n" for one in asked))
    lines = [f"q-{name}\t{name}\t1\n" for name, _ in judged]
    qrels.write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    return {"queries": str(queries), "qrels": str(qrels)}


# Samples: rows in Arrow, no table


def vectors_of(model: ModelSpec) -> Vectors:
    return Encoder.load(model.name, dim=model.dim).encode_documents(list(TEXTS.values()))


def random_vectors(dim: int = 128) -> Vectors:
    vectors = np.random.default_rng(1).standard_normal((N_DOCUMENTS, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def side(model: ModelSpec) -> Side:
    return side_of("vector", Encoder.load(model.name, dim=model.dim).space, model, RESOURCES)


def lists(vectors: Vectors) -> pa.FixedSizeListArray:
    """Null where a vector is NaN throughout."""
    flat = pa.array(vectors.reshape(-1))
    missing = pa.array(np.isnan(vectors).all(axis=1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=missing)


def corpus_of(old: Vectors, new: Vectors, rows: slice = slice(None)) -> Corpus:
    """Rows as a sampler gives them, in batches of 64."""
    table = pa.table(
        {
            "chunk_id": [f"chunk {name}" for name in TEXTS],
            "doc_id": list(TEXTS),
            "text": list(TEXTS.values()),
            "old": lists(old),
            "new": lists(new),
        }
    )
    chosen = pa.array(list(range(N_DOCUMENTS))[rows], pa.int64())

    def corpus() -> Iterator[JudgedRows]:
        yield from map(to_judged, table.take(chosen).to_batches(max_chunksize=64))

    return corpus


def judged(folder: Path, new: Vectors, model: ModelSpec = NEW, **release: object) -> GateReport:
    recipe = recipe_for(folder, release=release)
    return judge(recipe, corpus_of(vectors_of(OLD), new), side(OLD), side(model))


def failed(report: GateReport) -> list[str]:
    return [one.name for one in report.findings if one.outcome == "failed"]


def test_judge_same_vectors_differ_by_exactly_nothing(tmp_path: Path) -> None:
    report = judged(tmp_path, vectors_of(OLD), OLD, **labelled(tmp_path))
    assert (report.verdict, report.outcome, report.queries_kind) == ("yes", "done", "labelled")
    assert report.rows == N_DOCUMENTS and report.queries == N_DOCUMENTS / 5
    assert report.metrics["ndcg@10"].old.mean > 0.9
    for one in report.metrics.values():
        assert asdict(one.difference) == {"mean": 0, "low": 0, "high": 0} and one.old == one.new
    assert report.drift is not None and report.drift.overlap_100 == 1.0


def test_judge_other_dimensions_of_the_same_encoder_pass(tmp_path: Path) -> None:
    report = judged(tmp_path, vectors_of(NEW), **labelled(tmp_path), max_ndcg_drop=0.2)
    assert report.verdict == "yes" and (report.old.dim, report.new.dim) == (256, 128)
    assert report.drift is not None and 0.1 < report.drift.overlap_10 < 1


@pytest.mark.parametrize("with_labels", [True, False])
def test_judge_random_vectors_are_refused(tmp_path: Path, with_labels: bool) -> None:
    release = labelled(tmp_path) if with_labels else {}
    report = judged(tmp_path, random_vectors(), **release)
    assert (report.verdict, report.outcome) == ("no", "refused")
    assert failed(report) == ["ndcg@10"] and report.metrics["ndcg@10"].difference.high < -0.5


def test_judge_without_labels_makes_known_items_and_says_so(tmp_path: Path) -> None:
    report = judged(tmp_path, vectors_of(OLD), OLD)
    assert (report.verdict, report.queries_kind) == ("yes", "known-item")
    assert report.queries == N_DOCUMENTS and report.metrics["ndcg@10"].old.mean > 0.9
    (said,) = (one for one in report.findings if one.name == "queries")
    assert said.outcome == "warning" and "no labelled queries" in said.sentence


def test_judge_nan_vectors_are_refused(tmp_path: Path) -> None:
    broken = vectors_of(NEW)
    broken[7, 3] = np.nan
    report = judged(tmp_path, broken, **labelled(tmp_path), max_ndcg_drop=1)
    assert failed(report) == ["finite vectors"]


def test_judge_text_without_a_vector_is_refused(tmp_path: Path) -> None:
    broken = vectors_of(NEW)
    broken[7] = np.nan
    report = judged(tmp_path, broken, **labelled(tmp_path), max_ndcg_drop=1)
    assert failed(report) == ["missing vectors"] and report.health.new.missing == 1


def test_judge_vectors_of_other_length_are_refused(tmp_path: Path) -> None:
    report = judged(tmp_path, vectors_of(NEW) * 2, **labelled(tmp_path), max_ndcg_drop=1)
    assert failed(report) == ["unit length"]


def test_judge_collapsed_model_is_refused(tmp_path: Path) -> None:
    one = np.repeat(vectors_of(NEW)[:1], N_DOCUMENTS, axis=0)
    report = judged(tmp_path, one, **labelled(tmp_path), max_ndcg_drop=1)
    assert set(failed(report)) == {"different texts", "collapse"}


def test_judge_model_without_vectors_for_queries_is_refused_not_crashed(tmp_path: Path) -> None:
    mute = replace(side(NEW), encode=lambda texts: np.full((len(texts), 128), np.nan, np.float32))
    recipe = recipe_for(tmp_path, release=labelled(tmp_path))
    report = judge(recipe, corpus_of(vectors_of(OLD), vectors_of(NEW)), side(OLD), mute)
    assert set(failed(report)) == {"ndcg@10", "query vectors", "overlap"} and report.drift is None
    json.dumps(asdict(report), allow_nan=False)


def test_judge_sample_counts_only_documents_that_are_in_it(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, release=labelled(tmp_path))
    half = corpus_of(vectors_of(OLD), vectors_of(OLD), slice(N_DOCUMENTS // 2))
    report = judge(recipe, half, side(OLD), side(OLD), sampled_share=0.5)
    assert (report.rows, report.queries, report.queries_left_out) == (150, 30, 30)
    assert (report.judged_documents, report.unknown_documents) == (60, 30)
    assert report.metrics["recall@100"].old.mean == 1.0 and report.sampled_share == 0.5
    assert "sample" in {one.name for one in report.findings} and report.version is None


def test_judge_judgements_of_other_documents_are_refused(tmp_path: Path) -> None:
    release = labelled(tmp_path, {f"other{n}": "some words " * 9 for n in range(10)})
    with pytest.raises(UsageError, match=r"none of the 2 judged .* 'other0'"):
        judged(tmp_path, vectors_of(NEW), **release)


@pytest.mark.parametrize(
    ("queries", "qrels", "said"),
    [
        ("", "h\th\th\nq\td0\t1\n", "holds no queries"),
        ('{"_id": "q", "text": "w"}\n', "h\th\th\n", "holds no judgements"),
        ('{"_id": "q", "text": "w"}\n', "h\th\th\nother\td0\t1\n", "query ids are the same"),
    ],
)
def test_judge_labelled_files_that_say_nothing_are_refused(
    tmp_path: Path, queries: str, qrels: str, said: str
) -> None:
    release = labelled(tmp_path)
    Path(release["queries"]).write_text(queries)
    Path(release["qrels"]).write_text(qrels)
    with pytest.raises(UsageError, match=said):
        judged(tmp_path, vectors_of(NEW), **release)


def test_judge_queries_without_judgements_are_refused(tmp_path: Path) -> None:
    release = labelled(tmp_path)
    with pytest.raises(UsageError, match="no qrels file"):
        judged(tmp_path, vectors_of(NEW), queries=release["queries"])


def test_judge_query_that_is_no_text_is_refused(tmp_path: Path) -> None:
    release = labelled(tmp_path)
    Path(release["queries"]).write_text('{"_id": "q-d0", "text": "half a \\ud800 pair"}\n')
    with pytest.raises(UsageError, match=r"half a .* is not valid Unicode"):
        judged(tmp_path, vectors_of(NEW), **release)


def test_judge_model_that_is_of_another_space_by_now_is_refused(tmp_path: Path) -> None:
    moved = side_of("vector", side(NEW).space, OLD, RESOURCES)
    recipe = recipe_for(tmp_path, release=labelled(tmp_path))
    with pytest.raises(LakeError, match="the query is in space"):
        judge(recipe, corpus_of(vectors_of(OLD), vectors_of(NEW)), side(OLD), moved)


@pytest.mark.parametrize("with_labels", [True, False])
def test_judge_no_rows_are_refused(tmp_path: Path, with_labels: bool) -> None:
    recipe = recipe_for(tmp_path, release=labelled(tmp_path) if with_labels else {})
    none = corpus_of(vectors_of(OLD), vectors_of(NEW), slice(0))
    with pytest.raises((LakeError, UsageError), match=r"no rows|the rows are none"):
        judge(recipe, none, side(OLD), side(NEW))


def test_load_lets_one_model_go_before_the_next_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    held = weakref.ref(load(OLD, RESOURCES))
    assert load(OLD, RESOURCES) is held()
    real, at_loading = job.load_model, []

    def watched(*given: Any) -> Encoder:
        at_loading.append(held())
        return real(*given)

    monkeypatch.setattr(job, "load_model", watched)
    load(NEW, RESOURCES)
    assert at_loading == [None]


# Tables


def embedded(folder: Path, **changes: object) -> Recipe:
    """A table of the texts in the old space."""
    write_jsonl(folder, "a.jsonl", TEXTS)
    recipe = recipe_for(folder, model={"dim": 256}, **changes)
    assert run(recipe).outcome == "done"
    return recipe


def build(recipe: Recipe, model: ModelSpec = NEW) -> str:
    return build_space(recipe, model, RESOURCES, "build").column


def test_gate_of_a_table_says_yes_with_all_evidence(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, release={**labelled(tmp_path), "max_ndcg_drop": 0.2})
    column = build(recipe)
    before = table_of(recipe).dataset().version
    report = gate(recipe, RESOURCES, column)
    assert report.verdict == "yes" and report.version == before
    assert table_of(recipe).dataset().version == before
    assert (report.old.column, report.new.column) == ("vector", column)
    assert report.new.space_id == table_of(recipe).space(column)[0]
    assert report.ann is not None and report.ann.new.index is None
    assert report.latency is not None and min(report.latency.old, report.latency.new) > 0
    evaluated = evaluate(recipe, RESOURCES, column=column)
    assert report.metrics["ndcg@10"].new.mean == pytest.approx(evaluated.metrics["ndcg@10"].mean)
    json.dumps(asdict(report), allow_nan=False)


def test_gate_after_promote_judges_the_other_way_round(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, release={**labelled(tmp_path), "max_ndcg_drop": 1})
    column = build(recipe)
    forth = gate(recipe, RESOURCES, column)
    promote(table_of(recipe), column, "me")
    back = gate(recipe, RESOURCES, schema.hidden_name(forth.old.space_id))
    assert (back.old.space_id, back.new.space_id) == (forth.new.space_id, forth.old.space_id)
    assert back.metrics["mrr@10"].old == forth.metrics["mrr@10"].new


def test_gate_ruined_column_is_refused(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, release=labelled(tmp_path))
    job, table = begin_space(recipe, NEW, RESOURCES, "ruin"), table_of(recipe)
    rows = PlacedVectors(np.arange(N_DOCUMENTS), random_vectors())
    (fragment,) = table.dataset().get_fragments()
    assert fill_fragment(table, job.space_id, fragment.fragment_id, [rows]).missing_rows == 0
    report = gate(recipe, RESOURCES, schema.hidden_name(job.space_id))
    assert report.outcome == "refused" and failed(report) == ["ndcg@10"]
    # What was refused is news: the history has it, with the reason and the figures.
    refusal = record_refusal(job, "reembed", report)
    assert (refusal.action, refusal.to_space) == ("refuse", job.space_id)
    assert refusal.from_space == table.space()[0]
    overview = look_at(recipe)
    assert overview.releases == (refusal,)
    (reason,) = (find.sentence for find in report.findings if find.outcome == "failed")
    figures = f"{report.metrics['ndcg@10'].difference.mean:+.4f}"
    for document in map(unescape, (table_page(overview), OverviewView(overview).markdown())):
        assert "refuse" in document and reason in document and figures in document


def test_gate_title_column_makes_the_known_items(tmp_path: Path) -> None:
    records = [
        {"id": name, "title": " ".join(text.split()[-4:]), "text": text}
        for name, text in TEXTS.items()
    ]
    write_jsonl(tmp_path, "a.jsonl", records)
    source = {"metadata": {"title": "string"}}
    recipe = recipe_for(tmp_path, model={"dim": 256}, source=source, chunk={"max_tokens": 16})
    run(recipe)
    report = gate(recipe, RESOURCES, build(recipe))
    assert report.rows > report.queries == N_DOCUMENTS
    assert report.metrics["recall@100"].old.mean > 0.9


def test_gate_half_filled_column_is_refused(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    build(recipe)
    write_jsonl(tmp_path, "b.jsonl", {"late": "it came after the column was built"})
    run(recipe)
    (column,) = (one.column for one in columns(table_of(recipe)) if one.column != "vector")
    with pytest.raises(
        LakeError, match=f"1 of 301 rows of table 'docs' have no vector in {column}"
    ):
        gate(recipe, RESOURCES, column)


@pytest.mark.parametrize(
    ("column", "error", "said"),
    [
        ("vector", UsageError, "is the one in service"),
        ("vector__none", LakeError, "no column 'vector__none'"),
        ("text", LakeError, "does not say which model made it"),
    ],
)
def test_gate_of_what_is_no_candidate_is_refused(
    tmp_path: Path, column: str, error: type[Exception], said: str
) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"a": "one text"})
    recipe = recipe_for(tmp_path)
    run(recipe)
    with pytest.raises(error, match=said):
        gate(recipe, RESOURCES, column)


def test_gate_table_without_rows_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, "a.jsonl", {"a": "one text"})
    recipe = recipe_for(tmp_path, max_rejected_share=1)
    run(recipe)
    column = build(recipe)
    path.write_text('{"id": "a", "text": " "}')
    run(recipe)
    with pytest.raises(LakeError, match="has no rows to judge"):
        gate(recipe, RESOURCES, column)


def test_gate_with_indexes_measures_their_recall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "SAMPLE_QUERIES", 50)
    recipe = embedded(tmp_path, release={"max_ndcg_drop": 1}, index={"min_rows": 256})
    column = build(recipe)
    assert refresh_vector_index(table_of(recipe), recipe.index, column=column) is not None
    report = gate(recipe, RESOURCES, column)
    assert report.ann is not None and report.ann.old.index == report.ann.new.index == "IVF_SQ"
    (said,) = (one for one in report.findings if one.name == "index")
    assert said.outcome == "passed" and said.measured == report.ann.new.recall >= 0.95


def test_evaluate_judgements_of_other_documents_are_refused(tmp_path: Path) -> None:
    other = labelled(tmp_path, {f"other{n}": "some words " * 9 for n in range(10)})
    recipe = embedded(tmp_path, release=other)
    with pytest.raises(UsageError, match="none of the 2 judged documents"):
        evaluate(recipe, RESOURCES)
