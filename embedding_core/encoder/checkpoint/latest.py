"""Where a checkpoint is on this machine, and which of several dated ones ``latest`` is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from embedding_core.errors import ModelError

LATEST = "latest"
"""Last part of a model's name that stands for a folder beside it."""


@dataclass(frozen=True, slots=True)
class Located:
    """A folder on this machine."""

    directory: Path
    revision: str | None
    """Commit of a hub checkpoint, or the folder that ``latest`` stood for: its name, or its path
    when it does not lie beside ``latest``; None for any other checkpoint."""


_DATED = re.compile(r"\d{4}-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01]).*")


def newest_of(names: Iterable[str], where: str) -> str:
    """The latest of the names that start with a date, ``2026-11-03`` or ``20261103``.

    What follows the date (a time, a step) decides among names of the same day. Raises
    ``ModelError`` when no name is dated.
    """
    dated = [name for name in names if _DATED.fullmatch(name)]
    if not dated:
        raise ModelError(
            f"no {LATEST!r} in {where} and no folder whose name starts with a date such as "
            "2026-11-03; name the checkpoint itself"
        )
    return max(dated, key=lambda name: (name.replace("-", ""), name))


def pointed_at(content: bytes, file: str) -> str:
    """The folder that a file called ``latest`` names. Raises ``ModelError`` for other content."""
    name = content.decode("utf-8", "replace").strip().rstrip("/")
    if not name or "/" in name or "\n" in name or name in (".", "..", LATEST):
        raise ModelError(
            f"{file} holds {name[:80]!r}; it must hold the name of a checkpoint's folder beside it "
            "and nothing else"
        )
    return name
