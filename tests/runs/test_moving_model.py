"""Names whose model moves: between two tasks of a run, between runs, and under a reader."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest

import embedlake.lancedb_client  # noqa: F401  # makes the function known
from embedding_core import Encoder
from embedding_core.errors import LakeError, ModelError
from embedding_core.lake.query.search import Query
from embedding_core.lake.spaces.vector_columns import model_of
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.answers import search
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.commit_stage import commit_units
from embedding_core.runs.embed.embed_stage import embed_unit
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import load
from embedding_core.runs.prepared import prepared
from embedding_core.runs.space.build import build_space
from tests.checkpoints import build_adapter, build_qwen3
from tests.driver import ONE_FILE_PER_UNIT, begin, recipe_for, rows, run, write_jsonl
from tests.encoder.checkpoint.test_bucket import put
from tests.encoder.checkpoint.test_locate import fake_hub, move_main
from tests.sources.stub_s3 import BUCKET, stub_s3


@pytest.fixture(scope="module")
def other_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the shape of ``tiny_qwen3`` with other weights."""
    return build_qwen3(tmp_path_factory.mktemp("other"), initializer_range=0.2)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hugging Face's home, empty, and no hub."""
    folder = tmp_path / "hf"
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def checkpoints(tmp_path: Path, tiny_qwen3: Path) -> Path:
    """A folder of one dated checkpoint."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(tiny_qwen3, folder / "2026-11-01")
    return folder


def recipe_with(folder: Path, **model: Any) -> Recipe:
    for name in ("a", "b"):
        write_jsonl(folder, f"{name}.jsonl", {name: f"words of {name}"})
    settings = {"dtype": "fp32", "dim": 32}
    return recipe_for(folder, model=settings | model)


def assert_refused_once_moved(recipe: Recipe, move: Callable[[], object]) -> None:
    """Tasks of a run that was planned with the old model are refused, whatever they have loaded."""
    job, planned = begin(recipe)
    first, second = work_units(planned, ONE_FILE_PER_UNIT.unit_bytes)
    chunked = [chunk_unit(job, first), chunk_unit(job, second)]
    done = embed_unit(job, chunked[0])
    move()
    with pytest.raises(ModelError, match="changed during the run"):
        chunk_unit(job, second)
    with pytest.raises(ModelError, match="changed during the run"):
        embed_unit(job, chunked[1])
    commit_units(job, [done], planned.removed_keys)
    assert [row["text"] for row in rows(recipe)] == ["words of a"]


def test_dated_folder_that_arrives_during_a_run_is_refused(
    tmp_path: Path, checkpoints: Path, other_qwen3: Path
) -> None:
    recipe = recipe_with(tmp_path, name=f"{checkpoints}/latest")
    assert_refused_once_moved(
        recipe, lambda: shutil.copytree(other_qwen3, checkpoints / "2026-11-03")
    )


def test_link_that_moves_during_a_run_is_refused(
    tmp_path: Path, checkpoints: Path, other_qwen3: Path
) -> None:
    latest = checkpoints / "latest"
    latest.symlink_to("2026-11-01")
    shutil.copytree(other_qwen3, checkpoints / "2026-11-03")

    def move() -> None:
        latest.unlink()
        latest.symlink_to("2026-11-03")

    assert_refused_once_moved(recipe_with(tmp_path, name=str(latest)), move)


def test_weights_overwritten_in_place_during_a_run_are_refused(
    tmp_path: Path, checkpoints: Path, other_qwen3: Path
) -> None:
    folder = checkpoints / "2026-11-01"
    recipe = recipe_with(tmp_path, name=str(folder))
    weights = "model.safetensors"
    assert_refused_once_moved(recipe, lambda: shutil.copy(other_qwen3 / weights, folder / weights))


def test_search_model_that_was_overwritten_since_is_refused_with_both_spaces(
    tmp_path: Path, checkpoints: Path, other_qwen3: Path
) -> None:
    folder, weights = checkpoints / "2026-11-01", "model.safetensors"
    recipe = recipe_with(tmp_path, name=str(folder))
    run(recipe)
    shutil.copy(other_qwen3 / weights, folder / weights)
    said = r"query is in space [0-9a-f]{12} .*table in space [0-9a-f]{12} .*differ in identity"
    with pytest.raises(LakeError, match=said):
        list(search(recipe, Resources(), {"q": "words"}, Query()))


def test_adapter_that_changes_during_a_run_is_refused(tmp_path: Path, tiny_qwen3: Path) -> None:
    lora = build_adapter(tmp_path / "lora", tiny_qwen3, "Qwen3Model")
    recipe = recipe_with(tmp_path, name=str(tiny_qwen3), adapter=str(lora))
    assert_refused_once_moved(
        recipe, lambda: build_adapter(lora, tiny_qwen3, "Qwen3Model", lora_alpha=8)
    )


def test_hub_branch_that_moves_during_a_run_is_refused(
    tmp_path: Path, home: Path, tiny_qwen3: Path, other_qwen3: Path
) -> None:
    fake_hub(home, {"a" * 40: tiny_qwen3, "b" * 40: other_qwen3}, "a" * 40)
    recipe = recipe_with(tmp_path, name="owner/model", revision="main")
    assert_refused_once_moved(recipe, lambda: move_main(home, "b" * 40))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["c/2026-11-01", "c/latest"])
def test_prefix_that_changes_during_a_run_is_refused(
    tmp_path: Path, tiny_qwen3: Path, other_qwen3: Path, name: str
) -> None:
    with stub_s3() as stub:
        put(stub, "c/2026-11-01", tiny_qwen3)
        put(stub, "c/latest", tiny_qwen3)
        storage = stub.storage.model_dump()
        recipe = recipe_with(tmp_path, name=f"s3://{BUCKET}/{name}", storage=storage)
        assert_refused_once_moved(recipe, lambda: put(stub, name, other_qwen3))


def test_process_that_lives_on_loads_what_the_name_means_now(
    checkpoints: Path, other_qwen3: Path
) -> None:
    model = ModelSpec(name=f"{checkpoints}/latest", dtype="fp32")
    old = load(model, Resources())
    assert load(model, Resources()) is old
    shutil.copytree(other_qwen3, checkpoints / "2026-11-03")
    new = load(model, Resources())
    assert (old.space.revision, new.space.revision) == ("2026-11-01", "2026-11-03")
    assert new.space.identity != old.space.identity


@pytest.mark.slow
def test_reader_finds_the_model_that_made_the_table_after_latest_moved(
    tmp_path: Path, checkpoints: Path, tiny_qwen3: Path, other_qwen3: Path
) -> None:
    lora = build_adapter(tmp_path / "lora", tiny_qwen3, "Qwen3Model")
    recipe = recipe_with(tmp_path, name=f"{checkpoints}/latest", adapter=str(lora))
    run(recipe)
    shutil.copytree(other_qwen3, checkpoints / "2026-11-03")
    table = lancedb.connect(recipe.lake.uri).open_table("docs")
    [hit] = table.search("words of b").limit(1).to_list()
    made_by = Encoder.load(
        str(tiny_qwen3), adapter=str(lora), dtype="fp32", dim=32, device="cpu"
    ).encode_queries(["words of b"])
    assert np.isclose(hit["_distance"], ((made_by[0] - hit["vector"]) ** 2).sum(), atol=1e-3)


@pytest.mark.slow
def test_column_remembers_adapter_and_storage(tmp_path: Path, tiny_qwen3: Path) -> None:
    recipe = recipe_for(tmp_path)
    write_jsonl(tmp_path, "a.jsonl", {"a": "words"})
    run(recipe)
    lora = build_adapter(tmp_path / "lora", tiny_qwen3, "Qwen3Model")
    with stub_s3() as stub:
        put(stub, "q", tiny_qwen3)
        put(stub, "lora", lora)
        model = ModelSpec(
            name=f"s3://{BUCKET}/q",
            adapter=f"s3://{BUCKET}/lora",
            storage=stub.storage,
        )
        report = build_space(recipe, model, Resources(), "build")
        assert (report.encoded, report.missing_rows) == (1, 0)
        assert model_of(table_of(recipe).dataset(), report.column) == model


def test_tasks_of_a_process_find_the_model_once(tmp_path: Path, tiny_qwen3: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"1": "words"})
    job, _planned = begin(recipe_for(tmp_path, model={"name": str(tiny_qwen3), "dim": None}))
    first, second = prepared(job), prepared(job)
    assert first.model is second.model and first.chunker is second.chunker
