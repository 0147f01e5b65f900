"""The main job with source and table on a real S3 server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedding_core.recipe import Recipe
from embedding_core.store.conditional_put import check_conditional_put
from tests.driver import rows, run, texts
from tests.e2e.conftest import DONE, FAILED, Commands
from tests.e2e.recipes import write_recipe
from tests.s3 import S3Server

pytestmark = pytest.mark.e2e


def put_documents(s3: S3Server, bucket: str, name: str, text: str) -> None:
    line = json.dumps({"id": name, "text": text}) + "\n"
    s3.put(bucket, f"in/{name}.jsonl", line.encode())


def s3_recipe(s3: S3Server, bucket: str, folder: Path) -> Path:
    storage = {"endpoint_url": s3.endpoint_url, "region": s3.storage.region}
    return write_recipe(
        folder,
        source={"uri": f"s3://{bucket}/in", "storage": storage},
        lake={"uri": f"s3://{bucket}/lake", "storage": storage},
    )


def test_embed_on_s3_first_again_changed_removed(
    commands: Commands, s3: S3Server, tmp_path: Path
) -> None:
    bucket = s3.new_bucket()
    for number in range(4):
        put_documents(s3, bucket, f"d{number}", f"document number {number}")
    path = s3_recipe(s3, bucket, tmp_path)
    recipe = Recipe.load(path)

    first = commands.run("embedlake", "embed", str(path), "--json", "--set", "unit_bytes=1")
    assert first.code == DONE, first.err
    assert len(commands.task_runs(first.json["run_id"])) == 8

    again = commands.run("embedlake", "embed", str(path), "--json")
    assert commands.task_runs(again.json["run_id"]) == []

    put_documents(s3, bucket, "d2", "now about pears")
    s3.filesystem().rm_file(f"{bucket}/in/d1.jsonl")
    changed = commands.run("embedlake", "embed", str(path), "--json")
    assert len(commands.task_runs(changed.json["run_id"])) == 2
    assert texts(recipe) == ["document number 0", "now about pears", "document number 3"]

    hits = commands.run("embedlake", "search", str(path), "pears", "-k", "1", "--json")
    assert hits.json["hits"][0]["doc_id"] == "d2"


def test_run_on_s3_gives_the_same_rows_as_on_disk(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.new_bucket()
    for number in range(3):
        put_documents(s3, bucket, f"d{number}", f"document number {number}")
    remote = Recipe.load(s3_recipe(s3, bucket, tmp_path))
    assert run(remote).outcome == "done"
    lake = remote.lake.model_copy(update={"uri": str(tmp_path / "lake")})
    local = remote.model_copy(update={"lake": lake})
    assert run(local).outcome == "done"
    columns = ("chunk_id", "file_key", "source_uri", "text", "vector")
    assert rows(remote, *columns) == rows(local, *columns)


def test_run_on_s3_that_leaves_many_fragments_maintains_the_table(
    s3: S3Server, tmp_path: Path
) -> None:
    bucket = s3.new_bucket()
    loaded = Recipe.load(s3_recipe(s3, bucket, tmp_path))
    keep = loaded.maintain.model_copy(update={"small_fragments": 2})
    recipe = loaded.model_copy(update={"maintain": keep})
    for number in range(3):
        put_documents(s3, bucket, f"d{number}", f"document number {number}")
        report = run(recipe)
        assert report.outcome == "done"
    assert report.maintenance is not None and report.maintenance.problems == ()
    assert [one.after.fragments for one in report.maintenance.tables] == [1, 1, 0]
    assert texts(recipe) == [f"document number {number}" for number in range(3)]


def test_check_conditional_put_honest_store_passes_and_leaves_nothing(s3: S3Server) -> None:
    bucket = s3.new_bucket()
    check_conditional_put(f"s3://{bucket}/lake", s3.storage)
    assert s3.filesystem().find(bucket) == []


def test_plan_reads_a_recipe_that_is_itself_on_s3(
    commands: Commands, s3: S3Server, tmp_path: Path
) -> None:
    bucket = s3.new_bucket()
    put_documents(s3, bucket, "d0", "document number 0")
    s3.put(bucket, "recipes/r.yaml", s3_recipe(s3, bucket, tmp_path).read_bytes())
    planned = commands.run(
        "embedlake", "plan", f"s3://{bucket}/recipes/r.yaml", "--json",
        AWS_ENDPOINT_URL=s3.endpoint_url,
    )  # fmt: skip
    assert planned.code == DONE, planned.err
    assert planned.json["files"][0]["file"]["uri"] == f"s3://{bucket}/in/d0.jsonl"


def test_plan_without_credentials_says_so(commands: Commands, s3: S3Server, tmp_path: Path) -> None:
    path = s3_recipe(s3, s3.new_bucket(), tmp_path)
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    for command in ("plan", "status"):
        refused = commands.run(
            "embedlake", command, str(path), AWS_EC2_METADATA_DISABLED="true", **nothing
        )
        assert refused.code == FAILED
        assert "AWS_ACCESS_KEY_ID" in refused.err and "Traceback" not in refused.err
