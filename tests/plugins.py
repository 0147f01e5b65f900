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
    """A distribution called ``name`` with one module, ``<name>_plugin``, on this process's path.

    ``points``: ``module:object`` by the names that the distribution registers in ``group``.
    """
    (folder / f"{name}_plugin.py").write_text(module)
    distribution(folder, name, group, points)
    monkeypatch.syspath_prepend(folder)


def distribution(folder: Path, name: str, group: str, points: dict[str, str]) -> None:
    """The metadata that an installer leaves in ``folder``, with entry points as in ``install``."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{point} = {target}" for point, target in points.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))


def unread(registry: Registry[Any]) -> Registry[Any]:
    """The registry as a fresh process has it: it has not looked for plugins yet."""
    return Registry(registry.group, registry.built_in, registry.protocol)
