"""``embedlake embed`` through a real server, on Ray, beside a Prefect server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.driver import write_jsonl
from tests.e2e.conftest import DONE, FAILED, Commands
from tests.e2e.recipes import write_recipe
from tests.llama import MODEL, llama_server, write_gguf

pytestmark = pytest.mark.e2e

TEXTS = {
    "cat": "The cat sleeps on the sofa.",
    "tax": "Taxes rose again this year.",
    "sun": "Leaves turn light into sugar.",
    "sea": "Waves break on the harbour wall.",
}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "minilm.gguf")


@pytest.fixture
def url(gguf: Path) -> Iterator[str]:
    with llama_server(gguf) as url:
        yield url


def test_embed_and_search_by_a_server_on_ray(commands: Commands, tmp_path: Path, url: str) -> None:
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    write_jsonl(tmp_path, "b.jsonl", {"dog": "The dog barks at the postman."})
    model = {"name": url, "dim": None, "tokenizer": MODEL}
    path = str(write_recipe(tmp_path, model=model))
    options = ("--set", "unit=file", "--json")
    done = commands.run("embedlake", "embed", path, *options, EMBEDLAKE_RAY_ADDRESS="local")
    assert done.code == DONE, done.err
    assert done.json["embedded"] == 5
    again = commands.run("embedlake", "embed", path, "--json")
    assert again.code == DONE and again.json["embedded"] == 0
    found = commands.run("embedlake", "search", path, "how plants make energy", "-k", "1", "--json")
    assert found.json["hits"][0]["doc_id"] == "sun"


def test_reembed_from_another_engine_to_a_server(
    commands: Commands, tmp_path: Path, url: str
) -> None:
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    # So few texts say nothing about a model: whatever nDCG@10 it loses is let pass.
    path = str(write_recipe(tmp_path, release={"max_ndcg_drop": 1.0}))
    assert commands.run("embedlake", "embed", path).code == DONE
    section = json.dumps({"name": url, "tokenizer": MODEL})
    newer = commands.run("embedlake", "reembed", path, "--model", section, "--json")
    assert newer.code == DONE, newer.err
    assert newer.json["outcome"] == "promoted"
    found = commands.run("embedlake", "search", path, "how plants make energy", "-k", "1", "--json")
    assert found.json["hits"][0]["doc_id"] == "sun"


def test_embed_by_a_server_that_is_gone_says_so(commands: Commands, tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    model = {"name": "http://127.0.0.1:9", "dim": None, "tokenizer": "cautious"}
    path = str(write_recipe(tmp_path, model=model))
    gone = commands.run("embedlake", "embed", path)
    assert gone.code == FAILED
    assert "http://127.0.0.1:9 gave no answer" in gone.err and "look whether it runs" in gone.err
