"""YAML that others wrote: any text is a value or a ``YAMLError``, in bounded time.

PyYAML's own loaders raise errors of every kind for a value that cannot be (``2024-13-45``, ``!!int
''``), and let a few lines grow without bound by merges of merges.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

MOST_ALIASES = 1_000
"""Aliases that a document may have."""
MERGE = "tag:yaml.org,2002:merge"


class GuardedLoader(yaml.SafeLoader):
    """``SafeLoader`` whose every fault is a ``YAMLError``; ``<<`` is one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node; raises ``YAMLError`` where it is nested too deep."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
        except RecursionError as error:
            raise problem_at("lists or mappings are nested too deep", mark) from error
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Raise ``YAMLError`` for a merge."""
        for key, _ in node.value:
            if key.tag == MERGE:
                raise problem_at("<< merges nothing here; write the keys out", key.start_mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; raises ``YAMLError`` where the parser stumbles, as over ``!!int ''``."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
            tag = node.tag.removeprefix("tag:yaml.org,2002:")
            raise problem_at(f"no value of the type {tag[:80]!r}", node.start_mark) from error


class StrictLoader(GuardedLoader):
    """``GuardedLoader`` for what is walked as a tree: an alias of what has aliases in it is an
    error, for it grows then, and a key given twice is one, instead of the last one winning."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._plain: set[int] = set()  # of nodes that are complete and have no alias in them
        self._n_aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node; raises ``YAMLError`` for an alias that makes the document grow."""
        is_alias, before = self.check_event(yaml.AliasEvent), self._n_aliases
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        if is_alias:
            self._n_aliases += 1
            if id(node) not in self._plain or self._n_aliases > MOST_ALIASES:
                raise problem_at("an alias of what has aliases in it, or too many", mark)
        elif self._n_aliases == before:
            self._plain.add(id(node))
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping; raises ``YAMLError`` for a key that is there twice."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise problem_at(f"key {key.value[:80]!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def problem_at(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    """The error of a document at a mark in it."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
