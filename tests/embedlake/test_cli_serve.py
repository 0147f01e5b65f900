"""``embedlake serve`` and ``embedlake feedback``, as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from embedding_core.recipe import Recipe
from tests.server.served import made_table

PROGRAM = Path(sys.executable).parent / "embedlake"
TOKEN = "correct horse battery staple"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the recipe of a table that is made."""
    folder = tmp_path_factory.mktemp("served")
    made = made_table(folder)
    return written(folder, made)


def written(folder: Path, recipe: Recipe) -> Path:
    path = folder / "recipe.yaml"
    content = recipe.model_dump(mode="json", exclude_unset=True)
    path.write_text(yaml.safe_dump(content))
    return path


@contextmanager
def served(*arguments: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command's URL once it is ready, and its process, which ends with the context."""
    process = subprocess.Popen(
        [str(PROGRAM), "serve", *arguments, "--port", "0", "--json"],
        env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield json.loads(line)["url"], process
    finally:
        process.kill()
        process.communicate()


def ended(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM), *arguments], env=os.environ | environment, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.slow
def test_serve_answers_until_it_is_stopped(recipe: Path, tmp_path: Path) -> None:
    with served(str(recipe), "--feedback") as (url, process):
        assert url.startswith("http://127.0.0.1:")
        with httpx2.Client(base_url=url, timeout=60) as client:
            hits = client.post("/api/tables/docs/search", json={"query": "snow"}).json()["hits"]
            for number, hit in enumerate(hits):
                message = {"table": "docs", "query": f"snow {number}", "signal": "relevant"}
                answer = client.post("/feedback", json=message | {"doc_id": hit["doc_id"]})
                assert answer.status_code == 201
            refused = client.get("/api/tables", headers={"Host": "evil.example"})
            assert refused.status_code == 421
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert process.stderr is not None and process.stderr.read().endswith("stopped\n")
    labels = tmp_path / "labels"
    done = ended("feedback", str(recipe), "--to-beir", str(labels), "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["rows"] == len(hits) and report["queries"] == len(hits)
    assert (labels / "qrels" / "test.tsv").exists()


@pytest.mark.slow
def test_serve_on_another_address_wants_a_token(recipe: Path) -> None:
    refused = ended("serve", str(recipe), "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2 and "EMBEDLAKE_SERVE_TOKEN" in refused.stderr
    environment = {"EMBEDLAKE_SERVE_TOKEN": TOKEN}
    with served(str(recipe), "--host", "0.0.0.0", **environment) as (url, _):
        url = url.replace("0.0.0.0", "127.0.0.1")
        assert httpx2.get(f"{url}/api/tables", timeout=60).status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx2.get(f"{url}/api/tables", headers=headers, timeout=60).status_code == 200


def test_serve_refuses_a_token_that_is_easy_to_guess(recipe: Path) -> None:
    refused = ended("serve", str(recipe), EMBEDLAKE_SERVE_TOKEN="short")
    assert refused.returncode == 2 and "at least 16 characters" in refused.stderr
    assert "short" not in refused.stderr


def test_serve_without_a_table_ends_with_a_word(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    content = {
        "name": "none", "source": {"uri": "src", "id": "id"}, "model": {"name": "hashing"},
        "lake": {"uri": "lake", "table": "docs"},
    }  # fmt: skip
    recipe.write_text(yaml.safe_dump(content))
    done = ended("serve", str(recipe), "--port", "0", "--json")
    assert done.returncode == 1 and "there is no table 'docs'" in done.stderr
    assert "Traceback" not in done.stderr and "embedlake embed" in json.loads(done.stdout)["error"]


@pytest.mark.slow
def test_serve_on_a_port_in_use_ends_with_a_word(recipe: Path) -> None:
    with served(str(recipe)) as (url, _):
        done = ended("serve", str(recipe), "--port", url.rpartition(":")[2])
    assert done.returncode == 1 and "cannot listen on 127.0.0.1" in done.stderr
