"""Implementations of a protocol by name: ours by a line here, others' by a Python entry point.

A plugin that does not import, that lacks a part of the protocol, or that has another's name spoils
its own name alone: asking for it raises ``PluginError`` with the package to upgrade or remove.
A name of ours stays ours, whatever a plugin calls itself; ``problems`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from embedding_core.errors import PluginError, words

T = TypeVar("T")

FORMATS = "embedlake.formats"
STORES = "embedlake.stores"
CHUNK_STRATEGIES = "embedlake.chunk_strategies"
ENGINES = "embedlake.engines"
EXPORTERS = "embedlake.exporters"
CHECKS = "embedlake.checks"
REPORTS = "embedlake.reports"


class Registry(Generic[T]):
    """One group. Nothing is imported before a name is asked for."""

    def __init__(self, group: str, built_in: Mapping[str, str], protocol: type) -> None:
        """``built_in``: ``"package.module:object"`` by name; ``protocol``: what each must have."""
        self._group, self._built_in, self._protocol = group, built_in, protocol
        self._loaded: dict[str, T] = {}

    def names(self) -> tuple[str, ...]:
        """Ours in the order of their lines, then those of plugins, sorted."""
        plugins = sorted({point.name for point in self._points()} - self._built_in.keys())
        return (*self._built_in, *plugins)

    def get(self, name: str) -> T:
        """The implementation. Raises ``PluginError`` for a broken or ambiguous one, ``KeyError``
        for a name that nobody has registered."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def working(self) -> dict[str, T]:
        """Every implementation that loads, by name; see ``problems`` for the others."""
        return {name: self.get(name) for name in self.names() if self._problem(name) is None}

    def problems(self) -> tuple[str, ...]:
        """A sentence for each name that cannot be used; ``doctor`` shows them."""
        clashes = [
            f"the package {_package(point)} registers {point.name!r} in {self._group}, which is "
            "embedlake's own and stays so; uninstall the package, or have it renamed"
            for point in self._points()
            if point.name in self._built_in
        ]
        broken = (self._problem(name) for name in self.names())
        return (*clashes, *(why for why in broken if why is not None))

    def _points(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=self._group))

    def _problem(self, name: str) -> str | None:
        try:
            self.get(name)
        except PluginError as error:
            return str(error)
        return None

    def _load(self, name: str) -> T:
        if name in self._built_in:
            module, _, attribute = self._built_in[name].partition(":")
            return cast("T", getattr(import_module(module), attribute))
        points = [point for point in self._points() if point.name == name]
        if not points:
            raise KeyError(name)
        if len(points) > 1:
            raise PluginError(
                f"{self._group} has {name!r} from {' and from '.join(map(_package, points))}; "
                "uninstall one of them"
            )
        (point,) = points
        where = f"the plugin {name!r} ({self._group}) of the package {_package(point)}"
        try:
            loaded = point.load()
        except Exception as error:  # whatever somebody's module does when it is imported
            raise PluginError(
                f"{where} cannot be imported: {words(error)}; upgrade or uninstall the package"
            ) from error
        missing = [part for part in _parts(self._protocol) if not hasattr(loaded, part)]
        if missing:
            raise PluginError(
                f"{where} has no {', '.join(missing)}; upgrade or uninstall the package"
            )
        return cast("T", loaded)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _parts(protocol: type) -> list[str]:
    """Attributes and methods that a protocol asks for."""
    own = {*getattr(protocol, "__annotations__", {}), *vars(protocol)}
    return sorted(part for part in own if not part.startswith("_"))
