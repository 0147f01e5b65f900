"""Globs over relative paths, the way a shell with ``**`` reads them.

``*``, ``?`` and ``[…]`` stay within one part of the path, ``**`` stands for any number of whole
parts, and a part that starts with a dot is matched only by a pattern part that does too. Works on
strings, not on a file system: S3 keys may hold empty parts, ``.`` and ``..``, which are ordinary
names there.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Glob:
    """One compiled pattern."""

    parts: tuple[re.Pattern[str] | None, ...]
    """A pattern per path part; None stands for ``**``."""

    @classmethod
    def compile(cls, pattern: str) -> Glob:
        """Compile ``pattern``; never fails (an odd ``[`` is an ordinary character)."""
        names = pattern.removeprefix("./").split("/")
        return cls(tuple(None if name == "**" else _part(name) for name in names))

    def matches(self, path: str) -> bool:
        """Whether the relative path, parts joined by ``/``, fits the whole pattern."""
        reached = _after_stars(self.parts, {0})
        for name in path.split("/"):
            reached = _after_stars(self.parts, set(self._step(reached, name)))
        return len(self.parts) in reached

    def _step(self, reached: set[int], name: str) -> list[int]:
        """Pattern positions that can be reached by consuming one more path part."""
        following = []
        for at in reached:
            if at == len(self.parts):
                continue
            part = self.parts[at]
            if part is None and not is_hidden(name):
                following.append(at)
            elif part is not None and part.match(name):
                following.append(at + 1)
        return following


def is_hidden(name: str) -> bool:
    """Whether a path part is hidden by convention (``.git``); ``.`` and ``..`` are S3 names."""
    return name.startswith(".") and name not in (".", "..")


def names_hidden(patterns: Sequence[str]) -> bool:
    """Whether any pattern asks for hidden files or folders by name."""
    return any(is_hidden(part) for pattern in patterns for part in pattern.split("/"))


def _part(name: str) -> re.Pattern[str]:
    visible = "" if name.startswith(".") else r"(?!\.(?!\.?\Z))"
    return re.compile(visible + fnmatch.translate(name))


def _after_stars(parts: tuple[re.Pattern[str] | None, ...], reached: set[int]) -> set[int]:
    """``**`` may also stand for nothing: add the positions behind it."""
    for at in sorted(reached):
        while at < len(parts) and parts[at] is None:
            at += 1
            reached.add(at)
    return reached
