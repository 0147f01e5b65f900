"""Globs over relative paths, the way a shell with ``**`` reads them.

``*``, ``?`` and ``[…]`` stay within one part of the path, ``**`` stands for any number of whole
parts, and a hidden part, which begins with ``.`` or ``_``, is matched only by a pattern part that
begins so too. Works on strings, not on a file system: S3 keys may hold empty parts, ``.`` and
``..``, which are ordinary names there.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Glob:
    """One compiled pattern."""

    patterns: tuple[re.Pattern[str] | None, ...]
    """A pattern for each name of the path; None stands for ``**``."""
    finds_hidden: bool = False
    """Whether wildcards stand for hidden names too."""

    @classmethod
    def compile(cls, pattern: str, ignore_case: bool = False, finds_hidden: bool = False) -> Glob:
        """Compile ``pattern``; never fails (an odd ``[`` is an ordinary character)."""
        names = pattern.removeprefix("./").split("/")
        flags = re.IGNORECASE if ignore_case else re.NOFLAG
        patterns = (None if name == "**" else _pattern(name, flags, finds_hidden) for name in names)
        return cls(tuple(patterns), finds_hidden)

    def matches(self, path: str) -> bool:
        """Whether the relative path, parts joined by ``/``, fits the whole pattern."""
        folder, slash, name = path.rpartition("/")
        above = _reached_in(self, folder) if slash else self._start()
        return len(self.patterns) in self._next(above, name)

    def reaches_into(self, folder: str) -> bool:
        """Whether some path below the relative path of a folder could fit."""
        return any(at < len(self.patterns) for at in _reached_in(self, folder))

    def _start(self) -> set[int]:
        return _after_stars(self.patterns, {0})

    def _next(self, reached: Set[int], name: str) -> set[int]:
        return _after_stars(self.patterns, set(self._step(reached, name)))

    def _step(self, reached: Set[int], name: str) -> list[int]:
        """Pattern positions that can be reached by consuming one more path part."""
        following = []
        for at in reached:
            if at == len(self.patterns):
                continue
            pattern = self.patterns[at]
            if pattern is None and (self.finds_hidden or not is_hidden(name)):
                following.append(at)
            elif pattern is not None and pattern.match(name):
                following.append(at + 1)
        return following


@lru_cache(maxsize=1024)
def _reached_in(glob: Glob, folder: str) -> frozenset[int]:
    """Pattern positions behind a folder; thousands of files may ask for the same."""
    reached = glob._start()
    for name in folder.split("/"):
        reached = glob._next(reached, name)
    return frozenset(reached)


def is_hidden(name: str) -> bool:
    """Whether a path part is hidden by convention (``.git``, ``_temporary``), as for Spark.

    ``.`` and ``..`` are ordinary names on S3, and ``_day=1`` is a folder that holds a value.
    """
    return re.match(_HIDDEN, name) is not None


_HIDDEN = r"\.(?!\.?\Z)|_[^=]*\Z"


def _pattern(name: str, flags: re.RegexFlag, finds_hidden: bool) -> re.Pattern[str]:
    any_name = finds_hidden or name.startswith((".", "_"))
    return re.compile(("" if any_name else f"(?!{_HIDDEN})") + fnmatch.translate(name), flags)


def _after_stars(patterns: tuple[re.Pattern[str] | None, ...], reached: set[int]) -> set[int]:
    """``**`` may also stand for nothing: add the positions behind it."""
    for at in sorted(reached):
        while at < len(patterns) and patterns[at] is None:
            at += 1
            reached.add(at)
    return reached
