"""The names below a source that are read, and why the others are passed over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from embedding_core.recipe import SourceSpec
from embedding_core.records import PassedOver
from embedding_core.sources.formats.recognition import suffixes
from embedding_core.sources.globs import Glob, is_hidden
from embedding_core.sources.splits import Subset


@dataclass(frozen=True, slots=True)
class Selection:
    """The globs of a source, and counts of the names they passed over.

    Paths are relative to the source, parts joined by ``/``.
    """

    include: tuple[Glob, ...]
    exclude: tuple[Glob, ...]
    ends: tuple[str, ...] = ("",)
    """Ends of the names that are read, lower case."""
    subset: Subset = field(default_factory=Subset)
    """The config and the split that are read."""
    _counted: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, spec: SourceSpec) -> Selection:
        """The selection of a source; without ``include`` it takes known formats, and every file
        where the recipe names the format."""
        exclude = tuple(Glob.compile(pattern, finds_hidden=True) for pattern in spec.exclude)
        subset = Subset(spec.config, spec.split)
        if spec.include is None:
            ends = suffixes() if spec.format is None else ("",)
            return cls((Glob.compile("**/*"),), exclude, ends, subset)
        return cls(tuple(map(Glob.compile, spec.include)), exclude, subset=subset)

    @property
    def passed_over(self) -> PassedOver:
        """Counts of the names that were passed over so far."""
        return PassedOver(**self._counted)

    def enters(self, folder: str) -> bool:
        """Whether to look into a folder; counts a folder that is passed over."""
        if any(glob.matches(folder) for glob in self.exclude):
            return self._pass_over("excluded")
        if is_hidden(_last(folder)) and not any(glob.reaches_into(folder) for glob in self.include):
            return self._pass_over("hidden")
        return True

    def takes(self, file: str) -> bool:
        """Whether to read a file of an entered folder; counts a file that is passed over."""
        if any(glob.matches(file) for glob in self.exclude):
            return self._pass_over("excluded")
        is_chosen = any(glob.matches(file) for glob in self.include)
        if not is_chosen or not file.lower().endswith(self.ends):
            return self._pass_over("hidden" if is_hidden(_last(file)) else "unmatched")
        return self.subset.takes(file) or self._pass_over("unmatched")

    def _pass_over(self, reason: str) -> Literal[False]:
        self._counted[reason] += 1
        return False


def _last(path: str) -> str:
    return path.rpartition("/")[2]
