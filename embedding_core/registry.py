"""Implementations of a protocol by name: ours by a line in a table, others' by an entry point.

A plugin is broken when it does not import, lacks a member of the protocol or shares its name with
another plugin. It spoils its own name alone: asking for that raises ``PluginError`` with the
package to upgrade or remove, and everything else works. A name of ours stays ours, whatever a
plugin calls itself; ``problems`` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from embedding_core.errors import PluginError, words

T = TypeVar("T")

log = logging.getLogger(__name__)

FORMATS = "embedlake.formats"
STORES = "embedlake.stores"
CHUNK_STRATEGIES = "embedlake.chunk_strategies"
ENGINES = "embedlake.engines"
EXPORTERS = "embedlake.exporters"
CHECKS = "embedlake.checks"
REPORTS = "embedlake.reports"
PROJECTIONS = "embedlake.projections"


class Registry(Generic[T]):
    """One group. Nothing is imported before a name is asked for."""

    def __init__(self, group: str, built_in: Mapping[str, str], protocol: type) -> None:
        """``built_in``: ``"package.module:object"`` by name; ``protocol``: what each must have."""
        self.group, self.built_in, self.protocol = group, built_in, protocol
        self._loaded: dict[str, T] = {}
        self._broken: dict[str, PluginError] = {}

    def names(self) -> tuple[str, ...]:
        """Ours in the order of their lines, then those of plugins, sorted."""
        plugins = sorted({point.name for point in self._points} - self.built_in.keys())
        return (*self.built_in, *plugins)

    def get(self, name: str) -> T:
        """The implementation. Raises ``PluginError`` for a broken or ambiguous one, ``KeyError``
        for a name that nobody has registered."""
        if name in self._broken:
            raise self._broken[name]
        if name not in self._loaded:
            try:
                self._loaded[name] = self._load(name)
            except PluginError as error:
                log.warning("%s", error)
                self._broken[name] = error
                raise
        return self._loaded[name]

    def working(self) -> Mapping[str, T]:
        """Every implementation that loads, by name; the log warns of the others once."""
        return self._working

    def problems(self) -> tuple[str, ...]:
        """A sentence for each name that cannot be used; ``doctor`` shows them."""
        clashes = [
            f"the package {_package(point)} registers {point.name!r} in {self.group}, which is "
            "embedlake's own and stays so; uninstall the package, or have it renamed"
            for point in self._points
            if point.name in self.built_in
        ]
        broken = (self._problem(name) for name in self.names())
        return (*clashes, *(why for why in broken if why is not None))

    @cached_property
    def _working(self) -> dict[str, T]:
        return {name: self.get(name) for name in self.names() if self._problem(name) is None}

    @cached_property
    def _points(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=self.group))

    def _problem(self, name: str) -> str | None:
        try:
            self.get(name)
        except PluginError as error:
            return str(error)
        return None

    def _load(self, name: str) -> T:
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            return cast("T", getattr(import_module(module), attribute))
        points = [point for point in self._points if point.name == name]
        if not points:
            raise KeyError(name)
        if len(points) > 1:
            raise PluginError(
                f"{self.group} has {name!r} from {' and from '.join(map(_package, points))}; "
                "uninstall one of them"
            )
        (point,) = points
        where = f"the plugin {name!r} ({self.group}) of the package {_package(point)}"
        try:
            loaded = point.load()
        except (Exception, SystemExit) as error:  # whatever a module does when it is imported
            raise PluginError(
                f"{where} cannot be imported: {words(error)}; upgrade or uninstall the package"
            ) from error
        missing = [name for name in _members(self.protocol) if not hasattr(loaded, name)]
        if missing:
            raise PluginError(
                f"{where} has no {', '.join(missing)}; upgrade or uninstall the package"
            )
        return cast("T", loaded)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _members(protocol: type) -> list[str]:
    """Attributes and methods that a protocol asks for."""
    members = {*getattr(protocol, "__annotations__", {}), *vars(protocol)}
    return sorted(name for name in members if not name.startswith("_") or name == "__call__")
