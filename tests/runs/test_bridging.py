"""Queries of a model that is not in service, through the bridge that its sample left."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from embedding_core import Encoder
from embedding_core.errors import LakeError, UsageError
from embedding_core.identity import space_id
from embedding_core.lake.query.search import Query
from embedding_core.lake.spaces.bridges import bridge_path, keep_bridge, read_bridge
from embedding_core.lake.spaces.switching import promote
from embedding_core.lake.table import table_of
from embedding_core.lake.upkeep.belongings import drop_table
from embedding_core.lake.vectors import to_numpy
from embedding_core.quality.judgement import GateReport
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.answers import search
from embedding_core.runs.space.bridging import bridged
from embedding_core.runs.space.build import build_space, space_job
from embedding_core.runs.space.release import promote_space
from embedding_core.runs.space.sample import choose_sample, embed_sample, judge_sample
from tests.driver import recipe_for, run, write_jsonl
from tests.runs.test_gate import TEXTS, labelled

pytestmark = pytest.mark.slow

RESOURCES = Resources()
SMALL, LARGE = ModelSpec(name="hashing", dim=64), ModelSpec(name="hashing", dim=128)


def embedded(folder: Path, model: ModelSpec = SMALL) -> Recipe:
    write_jsonl(folder, "a.jsonl", TEXTS)
    recipe = recipe_for(
        folder, model={"dim": model.dim}, release=labelled(folder), index={"full_text": True}
    )
    assert run(recipe).outcome == "done"
    return recipe


def sampled(recipe: Recipe, model: ModelSpec) -> GateReport:
    job = space_job(recipe, model, RESOURCES, "run")
    return judge_sample(job, [embed_sample(job, part) for part in choose_sample(job, 1.0)])


def identifier(model: ModelSpec) -> str:
    return space_id(Encoder.load(model.name, dim=model.dim).space)


def kept(recipe: Recipe, new: ModelSpec, old: ModelSpec) -> Path:
    return Path(bridge_path(table_of(recipe), identifier(new), identifier(old)))


def finding_of(report: GateReport) -> tuple[str, str]:
    (finding,) = [finding for finding in report.findings if finding.name == "bridge"]
    return finding.outcome, finding.sentence


def test_sample_keeps_a_bridge_and_says_what_it_keeps(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    report = sampled(recipe, LARGE)
    assert report.bridge is not None and report.bridge.is_enough
    assert report.bridge.metrics["ndcg@10"].old == report.metrics["ndcg@10"].old
    assert report.bridge.cosine is not None and 0.5 < report.bridge.cosine < 1
    outcome, sentence = finding_of(report)
    assert outcome == "info" and f"{report.bridge.kept:.0%} of the old model's" in sentence
    matrix = read_bridge(table_of(recipe), identifier(LARGE), identifier(SMALL))
    assert matrix is not None and matrix.shape == (128, 64)


def test_sample_whose_bridge_keeps_too_little_says_so_and_keeps_none(tmp_path: Path) -> None:
    recipe = embedded(tmp_path, LARGE)
    report = sampled(recipe, SMALL)
    outcome, sentence = finding_of(report)
    assert outcome == "warning" and "too little to be kept: at least 90%" in sentence
    assert not kept(recipe, SMALL, LARGE).exists()


def test_sample_of_fewer_rows_than_dimensions_makes_no_bridge(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = embedded(tmp_path)
    with caplog.at_level(logging.WARNING):
        report = sampled(recipe, ModelSpec(name="hashing", dim=512))
    assert report.bridge is None and report.verdict == "yes"
    assert "no bridge" in caplog.text and "at least 512 rows" in caplog.text


def test_search_through_a_bridge_answers_what_the_bridge_was_measured_at(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    sampled(recipe, LARGE)
    words = " ".join(TEXTS["d7"].split()[9:16])
    (answer,) = search(recipe, RESOURCES, {"q": words}, Query(k=5), bridge_from=LARGE)
    assert answer.hits[0].doc_id == "d7"
    matrix = read_bridge(table_of(recipe), identifier(LARGE), identifier(SMALL))
    query = Encoder.load("hashing", dim=128).encode_queries([words]) @ matrix
    rows = Encoder.load("hashing", dim=64).encode_documents(list(TEXTS.values()))
    best = np.argsort(-(query @ rows.T)[0])[:5]
    assert [hit.doc_id for hit in answer.hits] == [list(TEXTS)[row] for row in best]


def test_search_through_a_bridge_may_be_filtered_and_hybrid(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    sampled(recipe, LARGE)
    query = Query(k=3, where="doc_id != 'd7'", hybrid=True)
    (answer,) = search(recipe, RESOURCES, {"q": TEXTS["d7"]}, query, bridge_from=LARGE)
    assert len(answer.hits) == 3 and "d7" not in {hit.doc_id for hit in answer.hits}


def test_bridged_encoder_gives_the_same_vectors_by_stream_and_by_call(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    sampled(recipe, LARGE)
    encoder = bridged(table_of(recipe).open(), Encoder.load("hashing", dim=128))
    words = ["one thing", "another", "a third"]
    batches = list(encoder.encode_stream([words[:2], words[2:]], "query"))
    streamed = np.concatenate([to_numpy(batch.column("vector")) for batch in batches])
    called = encoder.encode_queries(words)
    assert np.allclose(streamed, called, atol=1e-6) and called.shape == (3, 64)
    assert np.allclose(np.linalg.norm(called, axis=1), 1, atol=1e-5)
    assert encoder.space == Encoder.load("hashing", dim=64).space


def test_bridged_encoder_refuses_documents(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    sampled(recipe, LARGE)
    encoder = bridged(table_of(recipe).open(), Encoder.load("hashing", dim=128))
    with pytest.raises(UsageError, match="turns queries alone"):
        encoder.encode_documents(["a text"])
    with pytest.raises(UsageError, match="turns queries alone"):
        list(encoder.encode_stream([["a text"]]))


def test_search_without_a_bridge_says_what_makes_one(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    with pytest.raises(LakeError, match="no bridge leads from space") as caught:
        next(search(recipe, RESOURCES, {"q": "words"}, Query(), bridge_from=LARGE))
    assert caught.value.action == "reembed"


def test_search_with_the_model_in_service_needs_no_bridge(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    queries = {"q": TEXTS["d7"]}
    (plain,) = search(recipe, RESOURCES, queries, Query())
    assert next(search(recipe, RESOURCES, queries, Query(), bridge_from=SMALL)) == plain


def test_search_through_a_bridge_of_another_column_is_bad_usage(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    with pytest.raises(UsageError, match="leads to the column in service"):
        next(search(recipe, RESOURCES, {"q": "a"}, Query(column="vector__1"), bridge_from=LARGE))


def test_search_by_a_damaged_bridge_is_refused(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    sampled(recipe, LARGE)
    kept(recipe, LARGE, SMALL).write_bytes(b"no matrix")
    with pytest.raises(LakeError, match="is damaged"):
        next(search(recipe, RESOURCES, {"q": "words"}, Query(), bridge_from=LARGE))
    keep_bridge(table_of(recipe), identifier(LARGE), identifier(SMALL), np.eye(3, dtype=np.float32))
    with pytest.raises(LakeError, match=r"a matrix of \(3, 3\), not \(128, 64\)"):
        next(search(recipe, RESOURCES, {"q": "words"}, Query(), bridge_from=LARGE))


def test_promote_of_the_new_space_ends_the_bridge(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    sampled(recipe, LARGE)
    job = space_job(recipe, LARGE, RESOURCES, "run")
    build_space(recipe, LARGE, RESOURCES, "run")
    promote_space(job, "test", None)
    assert not kept(recipe, LARGE, SMALL).exists()
    (answer,) = search(recipe, RESOURCES, {"q": TEXTS["d7"]}, Query(k=1), bridge_from=LARGE)
    assert answer.hits[0].doc_id == "d7"


def test_bridge_to_a_space_that_is_replaced_by_hand_is_not_used(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    sampled(recipe, LARGE)
    other = ModelSpec(name="hashing", dim=32)
    promote(table_of(recipe), build_space(recipe, other, RESOURCES, "run").column, "test")
    with pytest.raises(LakeError, match="no bridge leads from space"):
        next(search(recipe, RESOURCES, {"q": "words"}, Query(), bridge_from=LARGE))


def test_drop_removes_bridges_with_the_table(tmp_path: Path) -> None:
    recipe = embedded(tmp_path)
    sampled(recipe, LARGE)
    drop_table(table_of(recipe))
    assert not kept(recipe, LARGE, SMALL).exists()
