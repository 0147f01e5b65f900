"""Distributions of somebody else, on Python's path for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedding_core.registry import Registry


def install(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    name: str,
    module: str,
    group: str,
    points: dict[str, str],
) -> None:
    """A distribution called ``name`` with one module, ``<name>_plugin``, and its entry points.

    ``points``: ``module:object`` by the names that the distribution registers in ``group``.
    """
    (folder / f"{name}_plugin.py").write_text(module)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{point} = {target}" for point, target in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(folder)


def unread(registry: Registry[Any]) -> Registry[Any]:
    """The registry as a fresh process has it: it has not looked for plugins yet."""
    return Registry(registry.group, registry.built_in, registry.protocol)
