"""Documents of a record by a function of the user's, which may raise, loop or return nonsense.

Whatever it does costs the record that it was given, and the reject says what it was.
"""

from __future__ import annotations

import traceback
from asyncio import CancelledError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from embedding_core.errors import words
from embedding_core.plurals import counted
from embedding_core.reasons import MAP_FAILED, NO_DOCUMENT
from embedding_core.recipe.mapping.function import MapFunction, MapSpec
from embedding_core.sources.formats.format import Flaw, Record, Undecodable, shown, type_name
from embedding_core.sources.mapping.time_limit import OutOfTime, time_limit

MOST_CHARACTERS = 64 * 1024 * 1024
"""Characters that the texts of all documents of a record may have."""
OF_CODE = (Exception, SystemExit, GeneratorExit, CancelledError)
"""What a user's code may raise; anything else ends the run."""
MOST_SLOW = 5
"""Records in a row that the function may take too long for: a run must not go on like that."""
_EXPECTED = "return a dict, a list or generator of dicts, or None"


@dataclass(frozen=True, slots=True)
class MappedRecord:
    """A record as the function made it."""

    position: int
    """That of the record in the file."""
    fields: Mapping[str, object]
    number: int | None
    """Its number among the documents of a list or generator; None for a dict alone."""


def mapped(spec: MapSpec, records: Iterator[Record | Flaw]) -> Iterator[MappedRecord | Flaw]:
    """The function's documents for each record, in order; flaws pass by.

    A record that gives no document is the flaw ``no_document``, one that the function fails for is
    ``map_failed``: then none of its documents counts. Raises ``UsageError`` when the function
    cannot be loaded, or takes too long for several records in a row.
    """
    function, n_slow = spec.load(), 0
    for record in records:
        if isinstance(record, Flaw):
            yield record
            continue
        try:
            documents = _documents(spec, function, record)
            n_slow = 0
        except OutOfTime as error:
            took = f"took more than {spec.seconds:g} s"
            advice = "correct it, or raise source.map.seconds"
            n_slow += 1
            if n_slow == MOST_SLOW:
                raise spec.unusable(
                    f"it {took} for {counted(n_slow, 'record')} in a row; {advice}"
                ) from error
            detail = f"source.map {spec.function!r} {took}; {advice}"
            documents = [Flaw(record.position, MAP_FAILED, detail)]
        yield from documents


class _Nonsense(Exception):
    """The function gave what is no document."""


def _documents(
    spec: MapSpec, function: MapFunction, record: Record
) -> Sequence[MappedRecord | Flaw]:
    position = record.position
    fields = _input(spec, record.fields)
    if isinstance(fields, Undecodable):
        return [Flaw(position, fields.reason, fields.detail)]
    name = f"source.map {spec.function!r}"
    try:
        with time_limit(spec.seconds, f"{name} at record {position}"):
            output = function(fields)
            if isinstance(output, Mapping):
                return [MappedRecord(position, document, None) for document in _checked([output])]
            outputs = _outputs(spec, output)
    except _Nonsense as error:
        return [Flaw(position, MAP_FAILED, f"{name} gave {error}")]
    except OF_CODE as error:
        return [Flaw(position, MAP_FAILED, f"{name} raised {_said(error)}")]
    if not outputs:
        return [Flaw(position, NO_DOCUMENT, f"{name} gave no document")]
    return [MappedRecord(position, document, number) for number, document in enumerate(outputs)]


def _input(spec: MapSpec, fields: Mapping[str, object]) -> dict[str, object] | Undecodable:
    """A copy of the fields that the function reads, or what is wrong with one of them."""
    names = fields if spec.fields is None else [name for name in spec.fields if name in fields]
    values = {name: fields[name] for name in names}
    for name, value in values.items():
        if isinstance(value, Undecodable):
            detail = f"field {name!r}: {value.detail}; name the others in source.map.fields"
            return Undecodable(value.reason, detail)
    return values


def _outputs(spec: MapSpec, output: object) -> list[dict[str, object]]:
    if output is None:
        return []
    if not isinstance(output, (list, tuple, Iterator)):
        raise _Nonsense(f"{type_name(output)} {shown(output)}; {_EXPECTED}")
    outputs = list(islice(_checked(output), spec.documents + 1))
    if len(outputs) > spec.documents:
        raise _Nonsense(
            f"more than {counted(spec.documents, 'document')}; correct it, or raise "
            "source.map.documents"
        )
    return outputs


def _checked(outputs: Iterable[object]) -> Iterator[dict[str, object]]:
    """The documents, each a dict with names for keys, and not too much text in all of them."""
    n_characters = 0
    for number, output in enumerate(outputs):
        if not isinstance(output, Mapping):
            raise _Nonsense(f"{type_name(output)} {shown(output)} as item {number}; {_EXPECTED}")
        document = dict(output)
        for name, value in document.items():
            if not isinstance(name, str):
                raise _Nonsense(f"the key {shown(name)}; a document's keys are strings")
            n_characters += len(value) if isinstance(value, str) else 0
        if n_characters > MOST_CHARACTERS:
            raise _Nonsense(f"texts of more than {MOST_CHARACTERS:,} characters; split the record")
        yield document


def _said(error: BaseException) -> str:
    """Type, text and line of an error; the text as it can be printed and stored."""
    try:
        text = words(error)
    except Exception:  # noqa: BLE001  its __str__ is the user's code, too
        text = "a message that cannot be written"
    text = text[:300].encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    frames = list(traceback.walk_tb(error.__traceback__))
    frame, line = frames[-1]
    name = Path(frame.f_code.co_filename).name
    return f"{type(error).__name__}: {text} ({name}, line {line})"
