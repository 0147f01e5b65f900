"""Sources on a hub: a commit is planned and read, nothing is downloaded to plan."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_core.errors import RejectedInput, SetupError, Transient, UsageError
from embedding_core.recipe import Recipe, SourceSpec
from embedding_core.records import Document, SourceFile
from embedding_core.reports.plan import PlanView
from embedding_core.runs.embed.planning import plan
from embedding_core.sources import discover, read_documents
from embedding_core.store.hub import Dataset
from embedding_core.store.objects import Paging
from tests.driver import recipe_for, run
from tests.sources.stub_hub import DATASET, StubHub, stub_hub

URI = f"hf://datasets/{DATASET}"
OLD, NEW = b'{"text": "old"}\n', b'{"text": "new"}\n'


@pytest.fixture
def hub() -> Iterator[StubHub]:
    with stub_hub() as running:
        yield running


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_core.store.retry.FIRST_PAUSE_SECONDS", 0)


def spec_of(hub: StubHub, uri: str = URI, **changes: object) -> SourceSpec:
    return SourceSpec(uri=uri, storage=hub.storage, **changes)  # type: ignore[arg-type]


def recipe_of(hub: StubHub, folder: Path, **source: object) -> Recipe:
    storage = hub.storage.model_dump()
    return recipe_for(folder, source={"uri": URI, "storage": storage, "id": None, **source})


def texts(file: SourceFile, spec: SourceSpec) -> list[str]:
    return [entry.text for entry in read_documents(file, spec) if isinstance(entry, Document)]


def names(spec: SourceSpec) -> list[str]:
    return [file.uri.removeprefix(f"{URI}/") for file in discover(spec).files]


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("hf://datasets/o/n", Dataset("o/n", "main", "")),
        ("hf://datasets/o/n@v1.0/data/", Dataset("o/n", "v1.0", "data")),
        ("hf://datasets/o/n@refs/convert/parquet", Dataset("o/n", "refs/convert/parquet", "")),
        ("hf://datasets/o/n@refs%2Fpr%2F7/a", Dataset("o/n", "refs/pr/7", "a")),
        ("hf://datasets/o/n@refs/pr/7/a@b/c", Dataset("o/n", "refs/pr/7", "a@b/c")),
        ("hf://datasets/o/n/a@b.jsonl", Dataset("o/n", "main", "a@b.jsonl")),
    ],
)
def test_parse_tells_name_revision_and_path(uri: str, parsed: Dataset) -> None:
    assert Dataset.parse(uri) == parsed


@pytest.mark.parametrize("uri", ["hf://owner/name", "hf://datasets/name", "hf://datasets/o/n@"])
def test_parse_of_what_is_no_dataset_says_how_to_write_one(uri: str) -> None:
    with pytest.raises(UsageError, match="write hf://datasets/owner/name"):
        Dataset.parse(uri)


def test_a_listing_pins_the_commit_and_downloads_nothing(hub: StubHub) -> None:
    commit = hub.commit({"data/a.jsonl": OLD, "README.md": b"# card", "data/b.bin": b"x"})
    found = discover(spec_of(hub, include=("data/*.jsonl",)))
    (file,) = found.files
    assert file.uri == f"{URI}/data/a.jsonl"
    assert file.version == commit
    assert file.fingerprint.startswith(f"{len(OLD)}-")
    assert found.passed_over.unmatched == 2
    assert hub.reads == []


@pytest.mark.parametrize("is_large", [True, False])
def test_the_fingerprint_is_the_content_and_not_the_commit(hub: StubHub, is_large: bool) -> None:
    hub.is_large = is_large
    hub.commit({"a.jsonl": OLD, "b.jsonl": OLD})
    before = discover(spec_of(hub)).files
    hub.commit({"a.jsonl": OLD, "b.jsonl": NEW})
    after = discover(spec_of(hub)).files
    assert before[0].fingerprint == after[0].fingerprint == before[1].fingerprint
    assert before[1].fingerprint != after[1].fingerprint
    assert before[0].version != after[0].version


def test_a_branch_that_moves_after_the_plan_changes_nothing_that_is_read(hub: StubHub) -> None:
    hub.commit({"a.jsonl": OLD})
    spec = spec_of(hub)
    (planned,) = discover(spec).files
    hub.commit({"a.jsonl": NEW})
    assert texts(planned, spec) == ["old"]
    assert texts(discover(spec).files[0], spec) == ["new"]


def test_a_revision_is_a_branch_a_commit_or_a_reference_with_slashes(hub: StubHub) -> None:
    first = hub.commit({"a.jsonl": OLD})
    hub.commit({"a.jsonl": NEW})
    hub.commit({"0.jsonl": OLD}, branch="refs/convert/parquet")
    assert texts(discover(spec_of(hub)).files[0], spec_of(hub)) == ["new"]
    spec = spec_of(hub, f"{URI}@{first}")
    assert texts(discover(spec).files[0], spec) == ["old"]
    assert names(spec_of(hub, f"{URI}@refs/convert/parquet")) == ["0.jsonl"]


def test_globs_are_relative_to_the_folder_of_the_source(hub: StubHub) -> None:
    hub.commit({"in/a.jsonl": OLD, "in/x/b.jsonl": OLD, "in/_c.jsonl": OLD, "inside.jsonl": OLD})
    assert names(spec_of(hub, f"{URI}/in")) == ["in/a.jsonl", "in/x/b.jsonl"]
    assert names(spec_of(hub, f"{URI}/in", exclude=("x",))) == ["in/a.jsonl"]
    assert names(spec_of(hub, f"{URI}/inside.jsonl")) == ["inside.jsonl"]


def test_odd_names_are_listed_and_read(hub: StubHub) -> None:
    odd = ["a b.jsonl", "ü?.jsonl", "x%2fy.jsonl", "d@v1/#1.jsonl", "e+f&g.jsonl"]
    hub.commit(dict.fromkeys(odd, OLD))
    spec = spec_of(hub)
    files = discover(spec).files
    assert sorted(file.uri for file in files) == sorted(f"{URI}/{name}" for name in odd)
    assert [texts(file, spec) for file in files] == [["old"]] * len(odd)


def test_only_the_columns_that_the_recipe_names_are_served(hub: StubHub) -> None:
    n_rows = 20_000
    noise = np.random.default_rng(0).bytes(400 * n_rows)
    big = [noise[400 * row : 400 * row + 400] for row in range(n_rows)]
    sink = pa.BufferOutputStream()
    table = pa.table({"image": big, "text": ["hello"] * n_rows, "more": big})
    pq.write_table(table, sink, row_group_size=5_000, use_dictionary=False)
    content = sink.getvalue().to_pybytes()
    hub.commit({"a.parquet": content})
    spec = spec_of(hub)
    (file,) = discover(spec).files
    assert len(texts(file, spec)) == n_rows
    assert hub.n_bytes_read < len(content) / 20


@pytest.mark.slow
def test_a_stream_is_opened_in_another_process(hub: StubHub) -> None:
    hub.commit({"a.jsonl": OLD})
    spec = spec_of(hub)
    job = pickle.dumps((discover(spec).files[0], spec))
    code = (
        "import pickle, sys; from embedding_core.sources import read_documents\n"
        "file, spec = pickle.load(sys.stdin.buffer)\n"
        "print([document.text for document in read_documents(file, spec)])"
    )
    done = subprocess.run([sys.executable, "-c", code], input=job, capture_output=True, check=True)
    assert done.stdout == b"['old']\n"


@pytest.mark.slow
def test_where_the_hub_is_comes_from_hf_endpoint(
    hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit({"a.jsonl": OLD})
    code = (
        "from embedding_core.recipe import SourceSpec\n"
        "from embedding_core.sources import discover\n"
        f"print(len(discover(SourceSpec(uri={URI!r})).files))"
    )
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"1\n"


def test_a_private_dataset_is_read_with_the_token_of_the_environment(
    hub: StubHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hub.token = "hf_secret"
    hub.commit({"a.jsonl": OLD})
    spec = spec_of(hub)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SetupError, match=r"HTTP 401 .*HF_TOKEN.*hf auth login"):
        discover(spec)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(SetupError, match=r"HTTP 403 .*HF_TOKEN") as caught:
        discover(spec)
    assert "hf_another" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with caplog.at_level(logging.DEBUG):
        (file,) = discover(spec).files
        assert texts(file, spec) == ["old"]
    assert "hf_secret" not in caplog.text + repr(file)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SetupError, match="HF_TOKEN"):
        texts(file, spec)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("hf://datasets/owner/other", r"HTTP 401 for owner/other.*HF_TOKEN"),
        (f"{URI}@gone", r"no revision 'gone'; correct what stands after @"),
        (f"{URI}/gone", r"no 'gone' in owner/name at main; correct the path"),
    ],
)
def test_what_is_not_there_is_named(hub: StubHub, uri: str, said: str) -> None:
    hub.commit({"a.jsonl": OLD})
    with pytest.raises(SetupError, match=said):
        discover(spec_of(hub, uri))


def test_a_dataset_that_a_token_does_not_find_is_named(
    hub: StubHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(SetupError, match="no such dataset, revision"):
        discover(spec_of(hub, "hf://datasets/owner/other"))


def test_a_file_that_left_the_history_is_one_reject(hub: StubHub) -> None:
    hub.commit({"a.jsonl": OLD})
    (file,) = discover(spec_of(hub)).files
    hub.commits.clear()
    with pytest.raises(RejectedInput, match=r"unreadable: .*HTTP 404"):
        texts(file, spec_of(hub))


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_a_hub_that_is_busy_is_asked_again_and_says_so(
    hub: StubHub, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    hub.commit({"a.jsonl": OLD})
    spec = spec_of(hub)
    hub.statuses += [status, status]
    (file,) = discover(spec).files
    hub.statuses += [status, status, status]
    assert texts(file, spec) == ["old"]
    assert caplog.text.count(f"HTTP {status} (attempt ") == 5


@pytest.mark.usefixtures("no_pauses")
def test_a_hub_that_stays_busy_is_transient(hub: StubHub) -> None:
    hub.statuses += [429] * 5
    with pytest.raises(Transient, match=r"in 5 attempts .*HTTP 429"):
        discover(spec_of(hub))
    assert len(hub.requests) == 5


def test_a_hub_that_asks_for_an_hour_is_left_alone_at_once(hub: StubHub) -> None:
    hub.statuses, hub.retry_after = [429], "3600"
    with pytest.raises(Transient, match=r"HTTP 429; run the same command again in 3,600 s"):
        discover(spec_of(hub))
    assert len(hub.requests) == 1


@pytest.mark.usefixtures("no_pauses")
def test_a_hub_that_is_not_there_is_transient() -> None:
    spec = SourceSpec.model_validate(
        {"uri": URI, "storage": {"endpoint_url": "http://127.0.0.1:9", "anonymous": True}}
    )
    with pytest.raises(Transient, match=r"127\.0\.0\.1:9/.* in 5 attempts"):
        discover(spec)


def test_offline_mode_is_named(hub: StubHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SetupError, match="HF_HUB_OFFLINE is set"):
        discover(spec_of(hub))


def test_a_config_and_a_split_choose_files(hub: StubHub) -> None:
    hub.commit({f"{config}/{split}-00000-of-00001.jsonl": OLD
                for config in ("en", "fr") for split in ("train", "test")})  # fmt: skip
    assert names(spec_of(hub, config="fr")) == [
        "fr/test-00000-of-00001.jsonl", "fr/train-00000-of-00001.jsonl"
    ]  # fmt: skip
    assert names(spec_of(hub, config="fr", split="train")) == ["fr/train-00000-of-00001.jsonl"]
    with pytest.raises(SetupError, match=r"source\.split is 'dev', the names show test, train"):
        discover(spec_of(hub, split="dev"))
    with pytest.raises(SetupError, match=r"source\.config is 'de', the folders show en, fr"):
        discover(spec_of(hub, config="de"))


def test_a_plan_over_a_thousand_shards_reads_none(hub: StubHub, tmp_path: Path) -> None:
    shards = {f"data/train-{n:05}-of-01000.jsonl": OLD + b"%d" % n for n in range(1000)}
    commit = hub.commit(shards)
    planned = plan(recipe_of(hub, tmp_path, split="train"))
    assert len(planned.files) == 1000
    assert {file.file.version for file in planned.files} == {commit}
    assert hub.reads == []
    assert len(hub.requests) == 3  # the commit and two pages, since the folder is an entry too
    assert (planned.estimated_chunks, planned.estimated_tokens) == (None, None)
    assert "no estimate, nothing is downloaded to plan" in PlanView(planned).lines()[-1]


def test_a_run_before_its_first_read_samples_the_dataset(hub: StubHub, tmp_path: Path) -> None:
    hub.commit({"a.jsonl": b'{"other": 1}\n'})
    planned = plan(recipe_of(hub, tmp_path), before_a_run=True)
    assert "missing_field" in planned.sample_problems[0]


def test_a_table_follows_a_branch_by_content(hub: StubHub, tmp_path: Path) -> None:
    hub.commit({"a.jsonl": OLD, "b.jsonl": OLD.replace(b"old", b"same")})
    recipe = recipe_of(hub, tmp_path)
    assert run(recipe).documents == 2
    assert plan(recipe).is_empty
    hub.commit({"a.jsonl": NEW, "b.jsonl": OLD.replace(b"old", b"same")})
    (changed,) = plan(recipe).files
    assert (changed.file.uri, changed.change) == (f"{URI}/a.jsonl", "changed")
    assert run(recipe).documents == 1
    assert plan(recipe).is_empty
    assert json.dumps(PlanView(plan(recipe)).data())


def test_a_branch_that_moves_during_a_run_waits_for_the_next(hub: StubHub, tmp_path: Path) -> None:
    hub.commit({"a.jsonl": OLD})
    recipe = recipe_of(hub, tmp_path)
    planned = plan(recipe, before_a_run=True)
    hub.commit({"a.jsonl": NEW})
    assert texts(planned.files[0].file, recipe.source) == ["old"]
    run(recipe)
    assert plan(recipe).is_empty


@pytest.mark.parametrize("endless", ["a circle", "new cursors"])
def test_a_listing_that_pages_for_ever_is_stopped(
    hub: StubHub, endless: Literal["a circle", "new cursors"]
) -> None:
    hub.commit({f"{number}.jsonl": b"{}" for number in range(5)})
    hub.page_size, hub.endless = 2, endless
    with pytest.raises(SetupError, match="does not end: its pages repeat; check HF_ENDPOINT"):
        discover(spec_of(hub))
    assert len(hub.requests) < 8


def test_a_listing_of_more_pages_than_the_limit_is_stopped() -> None:
    paging = Paging("a bucket", "look at it", most=3)
    paging.add(["a"], "1")
    paging.add([], "2")  # a store may send an empty page
    with pytest.raises(SetupError, match=r"list of a bucket .* after 3 pages, the limit; look at"):
        paging.add(["b"], "3")
    Paging("a bucket", "look at it", most=1).add(["a"], None)
