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


def test_embed_search_and_reembed_by_a_server(commands: Commands, tmp_path: Path, url: str) -> None:
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    write_jsonl(tmp_path, "b.jsonl", {"dog": "The dog barks at the postman."})
    model = {"name": url, "dim": None, "tokenizer": MODEL}
    path = str(write_recipe(tmp_path, model=model, release={"max_ndcg_drop": 1.0}))
    on_ray = {"EMBEDLAKE_RAY_ADDRESS": "local"}
    done = commands.run("embedlake", "embed", path, "--set", "unit=file", "--json", **on_ray)
    assert done.code == DONE, done.err
    assert done.json["embedded"] == 5
    again = commands.run("embedlake", "embed", path, "--json")
    assert again.code == DONE and again.json["embedded"] == 0
    found = commands.run("embedlake", "search", path, "how plants make energy", "-k", "1", "--json")
    assert found.json["hits"][0]["doc_id"] == "sun"
    newer = commands.run("embedlake", "reembed", path, "--model", MODEL, "--json", **on_ray)
    assert newer.code == DONE, newer.err
    back = {"name": url, "tokenizer": MODEL}
    last = commands.run("embedlake", "reembed", path, "--model", json.dumps(back), "--json")
    assert last.code == DONE, last.err


def test_embed_by_a_server_that_is_gone_says_so(commands: Commands, tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", TEXTS)
    model = {"name": "http://127.0.0.1:9", "dim": None, "tokenizer": "cautious"}
    path = str(write_recipe(tmp_path, model=model))
    gone = commands.run("embedlake", "embed", path)
    assert gone.code == FAILED
    assert "http://127.0.0.1:9 gave no answer" in gone.err and "look whether it runs" in gone.err
