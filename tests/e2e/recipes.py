"""Recipe files and sources for the end-to-end tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.driver import write_jsonl

N_FILES = 4


def write_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe file over ``folder``/src into ``folder``/lake; sections are merged."""
    content: dict[str, Any] = {
        "name": "e2e",
        "source": {"uri": "./src", "id": "id"},
        "chunk": {"max_tokens": 32},
        "model": {"name": "hashing", "dim": 32},
        "lake": {"uri": "./lake", "table": "docs"},
    }
    for section, values in changes.items():
        merged = isinstance(values, dict) and section in content
        content[section] = content[section] | values if merged else values
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def write_files(folder: Path) -> list[Path]:
    """Few files of one document each: a task on Ray takes a quarter of a second by itself."""
    return [
        write_jsonl(folder, f"file-{n}.jsonl", {f"d{n}": f"document number {n} about apples"})
        for n in range(N_FILES)
    ]
