"""A bucket without credentials: whatever asks for it says which variables to set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from embedding_core.errors import LakeError, ModelError, SetupError, UsageError
from embedding_core.lake.lock import locked
from embedding_core.lake.table import Lake
from embedding_core.quality.labels import queries_from
from embedding_core.recipe import Recipe, SourceSpec
from embedding_core.records import SourceFile
from embedding_core.runs.embed.planning import plan
from embedding_core.sources import read_documents
from embedding_core.store.storage import StorageSpec
from tests.driver import recipe_for, write_jsonl

STORE = {"endpoint_url": "http://127.0.0.1:9", "region": "us-east-1"}
"""Nobody listens there, and nobody is asked: a request is signed before it is sent."""
FILE = SourceFile("s3://bucket/in.jsonl", "5-etag", 5)


@pytest.fixture(params=["nothing", "a profile that is not there"])
def no_credentials(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """An environment in which no AWS client finds credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    if request.param != "nothing":
        monkeypatch.setenv("AWS_PROFILE", "not-there")
    clients = fsspec.get_filesystem_class("s3")
    clients.clear_instance_cache()
    yield
    clients.clear_instance_cache()


def take_the_lock(_folder: Path) -> None:
    table = Lake.open("s3://bucket/lake", StorageSpec.model_validate(STORE)).table("docs")
    with locked(table, "a test", 0):
        pass


ASKED: dict[str, tuple[type[Exception], Callable[[Path], object]]] = {
    "source": (
        SetupError,
        lambda folder: plan(
            recipe_for(folder, source={"uri": "s3://bucket/in", "storage": STORE})
        ),
    ),
    "file of the source": (
        SetupError,
        lambda _: list(read_documents(FILE, SourceSpec.model_validate(
            {"uri": FILE.uri, "storage": STORE}
        ))),
    ),
    "lake": (
        LakeError,
        lambda folder: plan(
            recipe_for(folder, lake={"uri": "s3://bucket/lake", "storage": STORE})
        ),
    ),
    "lock": (LakeError, take_the_lock),
    "model": (
        ModelError,
        lambda folder: plan(
            recipe_for(folder, model={"name": "s3://bucket/model", "dim": None, "storage": STORE})
        ),
    ),
    "recipe": (UsageError, lambda _: Recipe.load("s3://bucket/recipe.yaml")),
    "queries": (
        UsageError,
        lambda folder: queries_from("s3://bucket/q.jsonl", recipe_for(folder)),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("no_credentials")
@pytest.mark.parametrize("asked", ASKED)
def test_bucket_without_credentials_names_it_and_the_variables_to_set(
    asked: str, tmp_path: Path
) -> None:
    kind, ask = ASKED[asked]
    write_jsonl(tmp_path, "a.jsonl", {"x": "words"})
    with pytest.raises(kind) as caught:
        ask(tmp_path)
    said = str(caught.value)
    assert "bucket" in said
    for word in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "storage.anonymous"):
        assert word in said
