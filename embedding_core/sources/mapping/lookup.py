"""Values by their path in a record. A path is compiled once; a plain name costs a look-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from embedding_core.errors import RejectedInput
from embedding_core.recipe.mapping.field_path import FieldPath, Step
from embedding_core.sources.formats.format import Undecodable, wrong_type

ABSENT = object()
"""What a look-up gives for a field that the record does not have."""

Lookup = Callable[[Mapping[str, object]], object]
_Hops = list[tuple[Step, str | None, str]]
"""Steps of a path, each with the path from there on and the path up to there."""


def lookup(path: FieldPath) -> Lookup:
    """The function that gives the value at a path.

    In each object a field named as all the rest of the path comes first; readers of columns hand a
    value over under its whole path. Gives ``ABSENT`` where the path leads nowhere: no such field or
    item, or null on the way. Raises ``RejectedInput`` where something on the way is neither the
    object nor the list that the path needs.
    """
    if path.is_name:
        name = path.root
        return lambda fields: fields.get(name, ABSENT)
    hops: _Hops = [
        (step, path.rest(number) if number else path.written, path.written[:start].rstrip("."))
        for number, (step, start) in enumerate(zip(path.steps, path.starts, strict=True))
    ]
    return lambda fields: _followed(path.written, hops, fields)


def readable(value: object, name: str) -> object:
    """The value; raises ``RejectedInput`` for one whose bytes could not be read."""
    if isinstance(value, Undecodable):
        raise RejectedInput(value.reason, f"field {name!r}: {value.detail}")
    return value


def _followed(written: str, hops: _Hops, fields: Mapping[str, object]) -> object:
    value: object = fields
    for step, rest, before in hops:
        if value is None:
            return ABSENT
        if isinstance(step, int):
            if not isinstance(value, (list, tuple)):
                raise _astray("list", written, value, before)
            if not -len(value) <= step < len(value):
                return ABSENT
            value = value[step]
            continue
        if not isinstance(value, Mapping):
            raise _astray("object", written, value, before)
        if rest is not None and rest in value:
            return value[rest]
        value = value.get(step, ABSENT)
        if value is ABSENT:
            return ABSENT
    return value


def _astray(expected: str, written: str, value: object, before: str) -> RejectedInput:
    return wrong_type(before, f"{expected}, for the path {written!r}", readable(value, before))
