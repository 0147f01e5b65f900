"""Things in Prefect that ``embedlake deploy`` keeps, as plain values that can be compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

Kind = Literal["work pool", "deployment", "automation"]
"""In the order in which they are made: each may name those before it."""
KINDS: tuple[Kind, ...] = ("work pool", "deployment", "automation")
SHOWN_LENGTH = 120
"""Longer values are cut in lines for people."""


@dataclass(frozen=True, slots=True)
class Item:
    """A work pool, a deployment or an automation."""

    kind: Kind
    name: str
    """Unique among those of its kind."""
    values: Mapping[str, Any]
    """What it is, as JSON has it; no ids, which differ from server to server."""
    id: UUID | None = field(default=None, compare=False)
    """None until the server has it."""


@dataclass(frozen=True, slots=True)
class Change:
    """A thing to be made, changed or removed."""

    action: Literal["create", "update", "remove"]
    item: Item
    """The item that is to be there; of a removal, the item that is there."""
    before: Mapping[str, Any]
    """The values of an item that is changed; empty for others."""

    @property
    def fields(self) -> list[str]:
        """Names of the values that change."""
        names = self.before.keys() | self.item.values.keys()
        values = self.item.values
        return sorted(name for name in names if self.before.get(name) != values.get(name))

    def lines(self) -> Iterator[str]:
        """The change in words, for people."""
        sign = {"create": "+", "update": "~", "remove": "-"}[self.action]
        yield f"{sign} {self.item.kind} {self.item.name}"
        if self.action == "update":
            for name in self.fields:
                old, new = self.before.get(name), self.item.values.get(name)
                yield f"    {name}: {_short(old)} -> {_short(new)}"

    def data(self) -> dict[str, Any]:
        """The change for ``--json``."""
        fields = self.fields if self.action == "update" else []
        values = self.item.values
        return {
            "action": self.action,
            "kind": self.item.kind,
            "name": self.item.name,
            "fields": {
                name: {"from": self.before.get(name), "to": values.get(name)} for name in fields
            },
        }


def in_order(schedules: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Schedules in an order that does not depend on who lists them."""
    return sorted(schedules, key=lambda schedule: json.dumps(schedule, sort_keys=True))


def changes(existing: Sequence[Item], desired: Sequence[Item]) -> list[Change]:
    """What makes the existing items the desired ones.

    Removals come first, automations before the deployments that they name; then each kind is made
    after those that it names.
    """
    items = {(item.kind, item.name): item for item in existing}
    asked_for = {(item.kind, item.name) for item in desired}
    removed = [item for key, item in items.items() if key not in asked_for]
    removed.sort(key=lambda item: KINDS.index(item.kind), reverse=True)
    return [Change("remove", item, {}) for item in removed] + [
        change
        for item in sorted(desired, key=lambda item: KINDS.index(item.kind))
        if (change := _change(items.get((item.kind, item.name)), item)) is not None
    ]


def _change(existing: Item | None, desired: Item) -> Change | None:
    if existing is None:
        return Change("create", desired, {})
    if existing.values == desired.values:
        return None
    with_id = Item(desired.kind, desired.name, desired.values, existing.id)
    return Change("update", with_id, existing.values)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_LENGTH else f"{text[:SHOWN_LENGTH]}…"
