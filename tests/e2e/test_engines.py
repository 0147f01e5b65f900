"""``embedlake embed`` through a real server, on Ray, beside a Prefect server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.driver import write_jsonl
from tests.e2e.conftest import DONE, FAILED, Commands
from tests.e2e.recipes import write_recipe
from tests.encoder.remote.stub_engine import StubEngine, stub_engine
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


def test_embed_and_search_by_a_server_on_ray_with_no_more_requests_than_at_once(
    commands: Commands, tmp_path: Path
) -> None:
    """Tasks ask beside each other, and each could have two requests under way by itself."""
    for name, text in TEXTS.items():
        texts = {f"{name}{n}": f"{text} {n}" for n in range(5)}
        write_jsonl(tmp_path, f"{name}.jsonl", texts)
    too_many = threading.Event()

    def hold(engine: StubEngine, _texts: Sequence[str]) -> None:
        if engine.under_way > 2:
            too_many.set()
        too_many.wait(0.05)  # so that others come meanwhile, if they may

    with stub_engine(before=hold) as engine:
        model = {"name": engine.url, "dim": None, "tokenizer": "cautious"}
        path = str(write_recipe(tmp_path, model=model))
        changes = ("unit=file", "at_once=2", "batch_tokens=16")
        options = (word for change in changes for word in ("--set", change))
        ray = {"EMBEDLAKE_RAY_ADDRESS": "local", "EMBEDLAKE_RAY_CPUS": "2"}
        done = commands.run("embedlake", "embed", path, *options, "--json", **ray)
        assert done.code == DONE, done.err
        assert done.json["embedded"] == 20 and engine.most_at_once <= 2
        again = commands.run("embedlake", "embed", path, "--json")
        assert again.code == DONE and again.json["embedded"] == 0
        found = commands.run("embedlake", "search", path, f"{TEXTS['sun']} 3", "-k", "1", "--json")
        assert found.json["hits"][0]["doc_id"] == "sun3"


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
