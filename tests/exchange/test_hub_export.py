"""Exports to a stand-in hub: what is uploaded, what is refused, and that no token is kept."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embedding_core.errors import SetupError, Transient, UsageError
from embedding_core.exports.destination import Destination
from embedding_core.exports.hub_upload import HubRepository
from embedding_core.exports.spec import ExportSpec
from embedding_core.recipe import Recipe
from embedding_core.reports.report import said
from embedding_core.runs.exchange.exporting import ExportReport
from embedding_core.runs.exchange.hub_export import export_to_hub
from tests.driver import recipe_for, run, write_jsonl
from tests.exchange.stub_upload import UploadHub, upload_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    with upload_hub() as stub:
        monkeypatch.setenv("HF_TOKEN", stub.token)
        yield stub


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    write_jsonl(tmp_path, "a.jsonl", {f"d{n}": f"text number {n}" for n in range(10)})
    made = recipe_for(tmp_path)
    run(made)
    return made


def uploaded(
    recipe: Recipe, hub: UploadHub, staging: Path, to: str = "parquet", **how: bool
) -> ExportReport:
    uri, spec = "hf://datasets/me/vectors", ExportSpec(to=to, shard_rows=4)
    return export_to_hub(recipe, spec, uri, staging, **how, endpoint=hub.url)


def test_export_to_a_hub_uploads_a_private_dataset_with_its_card(
    recipe: Recipe, hub: UploadHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "embedding_core"):
        report = uploaded(recipe, hub, tmp_path / "staging")
    files = hub.files["me/vectors"]
    manifest = json.loads(files["manifest.json"])
    assert {file["path"]: file["sha256"] for file in manifest["files"]} == {
        path: hashlib.sha256(data).hexdigest()
        for path, data in files.items()
        if path not in (".gitattributes", "manifest.json")
    }
    assert files["README.md"].startswith(b"---\n") and b"data/**/*.parquet" in files["README.md"]
    assert hub.private == {"me/vectors": True}
    assert report.destination == "hf://datasets/me/vectors@main"
    assert list((tmp_path / "staging").iterdir()) == []
    assert hub.token not in caplog.text
    assert not any(hub.token.encode() in data for data in files.values())


def test_export_to_a_hub_over_an_export_replaces_its_rows(
    recipe: Recipe, hub: UploadHub, tmp_path: Path
) -> None:
    uploaded(recipe, hub, tmp_path / "staging")
    with pytest.raises(UsageError, match="holds an export already") as refused:
        uploaded(recipe, hub, tmp_path / "staging", "arrow")
    assert "--overwrite" in said(refused.value)
    uploaded(recipe, hub, tmp_path / "staging", "arrow", overwrite=True)
    rows = sorted(path for path in hub.files["me/vectors"] if path.startswith("data/"))
    assert rows == [f"data/part-0000{n}.arrow" for n in range(3)]


def test_export_to_a_hub_with_other_files_is_refused(
    recipe: Recipe, hub: UploadHub, tmp_path: Path
) -> None:
    hub.files["me/vectors"] = {"thesis.txt": b"mine"}
    with pytest.raises(UsageError, match="no export"):
        uploaded(recipe, hub, tmp_path / "staging", overwrite=True)
    assert hub.n_commits == 0 and not (tmp_path / "staging").exists()


@pytest.mark.parametrize("how", [{"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("manifest", [b'{"name": "a web page"}', b""])
def test_export_to_a_hub_with_a_manifest_of_something_else_is_refused(
    recipe: Recipe, hub: UploadHub, tmp_path: Path, how: dict[str, Any], manifest: bytes
) -> None:
    """Many tools call a file so, and their rows are in ``data``, too."""
    files = {"manifest.json": manifest, "data/train.parquet": b"mine"}
    hub.files["me/vectors"] = dict(files)
    with pytest.raises(SetupError, match=r"is no manifest of an export.*another folder or dataset"):
        uploaded(recipe, hub, tmp_path / "staging", **how)
    assert hub.files["me/vectors"] == files


def test_export_to_a_hub_never_resumes_over_another_export(
    recipe: Recipe, hub: UploadHub, tmp_path: Path
) -> None:
    uploaded(recipe, hub, tmp_path / "staging")
    before = dict(hub.files["me/vectors"])
    with pytest.raises(UsageError, match=r"another to; .* replace it with overwrite"):
        uploaded(recipe, hub, tmp_path / "staging", "arrow", resume=True)
    assert hub.files["me/vectors"] == before


def test_export_to_a_hub_looks_again_before_it_uploads(
    recipe: Recipe, hub: UploadHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody uploads to the dataset while the export is being written."""
    hub.files["me/vectors"] = {".gitattributes": b""}
    write = Destination.new_files

    def meanwhile(self: Destination, *arguments: Any) -> Any:
        hub.files["me/vectors"]["data/theirs.parquet"] = b"theirs"
        return write(self, *arguments)

    monkeypatch.setattr(Destination, "new_files", meanwhile)
    with pytest.raises(UsageError, match="holds files that are no export"):
        uploaded(recipe, hub, tmp_path / "staging")
    assert hub.n_commits == 0


@pytest.mark.parametrize("how", [{}, {"overwrite": True}], ids=["new", "overwrite"])
def test_export_to_a_hub_that_somebody_else_writes_to_meanwhile_writes_nothing(
    recipe: Recipe, hub: UploadHub, tmp_path: Path, how: dict[str, bool]
) -> None:
    """Two uploads at once: the one that comes second finds another commit than it looked at."""
    if how:
        uploaded(recipe, hub, tmp_path / "staging")
    hub.before_commit = lambda hub: hub.write("me/vectors", "manifest.json", b"theirs")
    with pytest.raises(UsageError, match=r"changed while .* nothing of it was written") as refused:
        uploaded(recipe, hub, tmp_path / "staging", "arrow", **how)
    assert "--overwrite" in said(refused.value)
    files = hub.files["me/vectors"]
    assert files["manifest.json"] == b"theirs"
    assert not any(path.endswith(".arrow") for path in files)


def test_export_to_a_hub_by_two_at_once_is_of_one_of_them(
    recipe: Recipe, hub: UploadHub, tmp_path: Path
) -> None:
    hub.before_commit = lambda _hub: uploaded(recipe, hub, tmp_path / "theirs", "npy")
    with pytest.raises(UsageError, match="changed while"):
        uploaded(recipe, hub, tmp_path / "ours", "jsonl")
    suffixes = {Path(path).suffix for path in hub.files["me/vectors"] if path.startswith("data/")}
    assert hub.n_commits == 1 and ".npy" in suffixes and ".jsonl" not in suffixes


def test_export_to_a_hub_that_breaks_off_goes_on_with_what_is_staged(
    recipe: Recipe, hub: UploadHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_pauses = SimpleNamespace(sleep=lambda _seconds: None)  # between tries of the library
    monkeypatch.setattr("huggingface_hub.utils._http.time", without_pauses)
    hub.status = 503
    with pytest.raises(Transient) as failed:
        uploaded(recipe, hub, tmp_path / "staging")
    assert "--resume" in said(failed.value)
    hub.status = None
    report = uploaded(recipe, hub, tmp_path / "staging", resume=True)
    assert (report.shards, report.shards_written) == (3, 0)
    assert "manifest.json" in hub.files["me/vectors"]


def test_export_to_a_hub_with_a_wrong_token_says_what_to_set(
    recipe: Recipe, hub: UploadHub, tmp_path: Path
) -> None:
    hub.token = "hf_another"
    with pytest.raises(SetupError, match="HF_TOKEN") as refused:
        uploaded(recipe, hub, tmp_path / "staging")
    assert "geheim" not in str(refused.value)


def test_export_to_a_branch_of_a_new_dataset_makes_the_branch(
    recipe: Recipe, hub: UploadHub, tmp_path: Path
) -> None:
    uri, spec = "hf://datasets/me/vectors@daily", ExportSpec(to="parquet")
    report = export_to_hub(recipe, spec, uri, tmp_path / "staging", endpoint=hub.url)
    assert report.destination == uri and hub.branches == {"main", "daily"}
    assert "manifest.json" in hub.files["me/vectors"]


def test_export_to_a_branch_that_a_dataset_lacks_says_how_to_make_it(
    recipe: Recipe, hub: UploadHub, tmp_path: Path
) -> None:
    """A branch that the export made would begin with the files of the default one."""
    hub.files["me/vectors"] = {"thesis.txt": b"mine"}
    uri, spec = "hf://datasets/me/vectors@daily", ExportSpec(to="parquet")
    with pytest.raises(SetupError, match=r"has no branch 'daily'; make it on the dataset's page"):
        export_to_hub(recipe, spec, uri, tmp_path / "staging", endpoint=hub.url)
    assert hub.branches == {"main"} and hub.n_commits == 0


@pytest.mark.parametrize("uri", ["hf://datasets/me", "hf://datasets/me/x/folder"])
def test_destination_that_is_no_whole_dataset_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="dataset"):
        HubRepository.parse(uri)
