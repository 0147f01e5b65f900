"""A store that ignores If-None-Match is refused before the first write."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding_core.errors import LakeError
from embedding_core.runs.job import locked_for
from embedding_core.store.conditional_put import check_conditional_put, check_writable
from embedding_core.store.storage import StorageSpec
from tests.driver import recipe_for, run, write_jsonl
from tests.lake.forgetful_s3 import forgetful_store
from tests.synthetic import make_table


def test_check_conditional_put_local_folder_passes(tmp_path: Path) -> None:
    check_conditional_put(str(tmp_path), StorageSpec())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_check_conditional_put_store_that_overwrites_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with forgetful_store() as store:
        spec = StorageSpec(endpoint_url=store.url, region="us-east-1")
        with pytest.raises(LakeError, match="ignores If-None-Match"):
            check_conditional_put("s3://bucket/lake", spec)
        assert all("probe-" in key for key in store.written)


@pytest.mark.slow
@pytest.mark.parametrize("begin", ["a run", "a table"])
def test_store_that_overwrites_is_refused_before_the_first_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, begin: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with forgetful_store() as store:
        storage = {"endpoint_url": store.url, "region": "us-east-1"}
        recipe = recipe_for(tmp_path, lake={"uri": "s3://bucket/lake", "storage": storage})
        with pytest.raises(LakeError, match="ignores If-None-Match"):
            if begin == "a table":
                make_table(recipe)
            else:
                locked_for(recipe, "run", 0).__enter__()
        assert store.written
        assert all("probe-" in key for key in store.written)


def test_check_conditional_put_nobody_there_says_what_to_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    spec = StorageSpec(endpoint_url="http://127.0.0.1:9", region="us-east-1")
    with pytest.raises(LakeError, match="endpoint_url"):
        check_conditional_put("s3://bucket/lake", spec)


def test_check_writable_folder_passes_and_nothing_stays(tmp_path: Path) -> None:
    check_writable(str(tmp_path / "not" / "there" / "yet"), StorageSpec())
    assert list(tmp_path.iterdir()) == []


NOWHERE = ["/proc/embedlake", "/proc/self/deep/er", "/sys/embedlake", "/dev/null/embedlake"]
"""Paths that nobody may write, root included."""


@pytest.mark.parametrize("uri", [*NOWHERE, f"/tmp/{'x' * 300}"])
def test_lake_where_nobody_can_write_is_a_final_error(tmp_path: Path, uri: str) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "one"})
    recipe = recipe_for(tmp_path, lake={"uri": uri})
    for begin in (lambda: make_table(recipe), lambda: run(recipe)):
        with pytest.raises(LakeError) as caught:
            begin()
        assert "lake.uri" in str(caught.value)
