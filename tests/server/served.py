"""Tables to serve in tests, and servers of them on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from embedding_core.lake.spaces.switching import promote
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.space.build import build_space
from embedding_core.server.answering.limits import Limits
from embedding_core.server.answering.service import SearchService
from embedding_core.server.web.application import application
from embedding_core.server.web.guard import Access
from embedding_core.server.web.listening import in_background
from tests.driver import recipe_for, run, write_jsonl

RESOURCES = Resources()
AT_ONCE = Limits(fresh_seconds=0, retry_seconds=0)
"""Limits of a server that looks at its tables for every question."""
NEW = ModelSpec(name="hashing", dim=128)
TOPICS = (
    "Leaves turn light into sugar",
    "Interest rates rose again this spring",
    "The river floods its valley when the snow melts",
    "A compiler turns source text into machine code",
    "Bees carry pollen from flower to flower",
    "The orchestra tuned before the concert began",
)
METADATA = {"title": "string", "year": "int", "score": "float", "open": "bool", "at": "timestamp"}


def records(n_records: int = 12) -> list[dict[str, Any]]:
    """Documents of several passages with metadata of every type."""
    return [
        {
            "id": f"d{number}",
            "title": f"Report {number}",
            "text": " ".join(
                f"{TOPICS[(number + n) % 6]} in year {number * 7}." for n in range(12)
            ),
            "year": 2000 + number,
            "score": number / 4,
            "open": number % 2 == 0,
            "at": f"2024-01-{number % 28 + 1:02}T00:00:00Z",
        }
        for number in range(n_records)
    ]


def made_table(folder: Path, **changes: Any) -> Recipe:
    """A recipe whose table is made: passages with overlap, metadata, a full-text index."""
    write_jsonl(folder, "a.jsonl", records())
    sections = {
        "source": {"metadata": METADATA},
        "chunk": {"max_tokens": 48, "overlap": 8},
        "index": {"full_text": True},
    }
    recipe = recipe_for(folder, **sections | changes)
    assert run(recipe).outcome == "done"
    return recipe


def table(recipe: Recipe) -> Table:
    return table_of(recipe)


def built_space(recipe: Recipe, model: ModelSpec = NEW) -> str:
    """The column of another space, built and not in service."""
    return build_space(recipe, model, RESOURCES, "build").column


def switch(recipe: Recipe, column: str) -> str:
    """Put a column in service; gives the name of the one that served."""
    release = promote(table_of(recipe), column, "test", wait_seconds=30)
    others: list[str] = [
        name for name in table_of(recipe).open().schema.names if name.startswith("vector__")
    ]
    assert release is not None
    return others[0]


@contextmanager
def serving(
    *recipes: Recipe,
    limits: Limits = AT_ONCE,
    feedback: bool = False,
    access: Access | None = None,
    silent_seconds: float = 10.0,
    headers: dict[str, str] | None = None,
    bridge_from: ModelSpec | None = None,
) -> Iterator[httpx2.Client]:
    """A server on loopback while the context lasts, and a client of it."""
    service = SearchService(recipes, RESOURCES, limits, feedback, bridge_from)
    app = application(service, access)
    with (
        in_background(app, service.open, silent_seconds=silent_seconds) as url,
        httpx2.Client(base_url=url, timeout=60, headers=headers) as client,
    ):
        yield client


def search(client: httpx2.Client, query: str = "light and sugar", **message: Any) -> Any:
    """The answer to a query, whatever its status."""
    name = message.pop("table", "docs")
    return client.post(f"/api/tables/{name}/search", json={"query": query, **message})
