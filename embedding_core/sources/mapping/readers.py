"""Ids, texts and metadata of a record: one function each, made once for a file.

Each takes the short way for the usual case, a string in a field of the record, and raises
``RejectedInput`` for the first rule that a record breaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from operator import itemgetter
from typing import cast
from uuid import UUID

from embedding_core.errors import RejectedInput
from embedding_core.reasons import EMPTY_TEXT, LONE_SURROGATE, MISSING_FIELD, NUL_CHARACTER
from embedding_core.recipe import MetadataColumn, SourceSpec
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.recipe.mapping.template import Placeholder, TextTemplate
from embedding_core.records import Scalar
from embedding_core.records.scalars import INT64_MAX, INT64_MIN
from embedding_core.sources.formats.format import ColumnFloat, Undecodable, listed, wrong_type
from embedding_core.sources.mapping.lookup import ABSENT, lookup, readable
from embedding_core.sources.mapping.metadata import convert, folder_values, whole
from embedding_core.sources.mapping.tidying import tidier

FieldsOf = Mapping[str, object]


def id_reader(name: str) -> Callable[[FieldsOf], str]:
    """The function that gives the id in the field at a path."""
    find, label = lookup(FieldPath.parse(name)), f"field {name!r}"

    def read(fields: FieldsOf) -> str:
        value = find(fields)
        doc_id = value if type(value) is str else _id_text(name, _required(fields, value, name))
        if not doc_id:
            raise RejectedInput(MISSING_FIELD, f"{label} is an empty string")
        if not doc_id.isascii() or "\0" in doc_id:
            _check(doc_id, label)
        return doc_id

    return read


def text_reader(spec: SourceSpec) -> Callable[[FieldsOf], str]:
    """The function that renders the text and tidies it up, and refuses a blank one."""
    render = _renderer(TextTemplate.parse(spec.text))
    tidied = tidier(spec.normalize, spec.whitespace)

    def read(fields: FieldsOf) -> str:
        text = render(fields)
        if not text.isascii() or "\0" in text:
            _check(text, "the text")
        if tidied is not None:
            text = tidied(text)
        if not text or text.isspace():
            raise RejectedInput(EMPTY_TEXT, "the text is empty or only white space")
        return text

    return read


def title_reader(spec: SourceSpec) -> Callable[[FieldsOf], str | None] | None:
    """The function that renders the title and tidies it up like the text; its title is None where a
    field that it needs is missing or null, or all of it is blank. None without ``source.title``."""
    if spec.title is None:
        return None
    parsed = replace(TextTemplate.parse(spec.title), is_plain=False)
    render, tidied = _renderer(parsed), tidier(spec.normalize, spec.whitespace)
    needed = [
        lookup(placeholder.path)
        for placeholder in parsed.placeholders
        if placeholder.default is None
    ]

    def read(fields: FieldsOf) -> str | None:
        if any(_is_missing(find(fields)) for find in needed):
            return None
        title = render(fields)
        _check(title, "the title")
        if tidied is not None:
            title = tidied(title)
        return title.strip() or None

    return read


def column_readers(
    columns: Mapping[str, MetadataColumn], uri: str
) -> tuple[tuple[str, Callable[[FieldsOf], Scalar]], ...]:
    """A function for each metadata column that gives its value, of the declared type; a folder of
    the file gives it where the record has no such field."""
    folders = folder_values(uri, columns)
    return tuple(
        (name, _column_reader(column, folders.get(name))) for name, column in columns.items()
    )


def _column_reader(
    column: MetadataColumn, of_folder: Scalar | Undecodable
) -> Callable[[FieldsOf], Scalar]:
    name, declared = column.field, column.type
    find, label = lookup(FieldPath.parse(name)), f"field {name!r}"
    is_text, is_int = declared == "string", declared == "int"

    def read(fields: FieldsOf) -> Scalar:
        value = find(fields)
        if is_text and type(value) is str:
            if not value.isascii() or "\0" in value:
                _check(value, label)
            return value
        if is_int and type(value) is int and INT64_MIN <= value <= INT64_MAX:
            return value
        if value is ABSENT:
            return cast("Scalar", readable(of_folder, name))
        converted = convert(readable(value, name), declared, name)
        if isinstance(value, str):
            _check(value, label)
        return converted

    return read


def pattern_of(template: TextTemplate) -> str:
    """The template with ``%s`` for each placeholder."""
    return "".join(
        piece.replace("%", "%%") if isinstance(piece, str) else "%s" for piece in template.pieces
    )


def _renderer(template: TextTemplate) -> Callable[[FieldsOf], str]:
    values = [
        _value_reader(placeholder, template.is_plain) for placeholder in template.placeholders
    ]
    if template.is_plain:
        return values[0]
    pattern = pattern_of(template)
    names = [part.path.root for part in template.placeholders if part.path.is_name]
    if len(names) < len(values):
        return lambda fields: pattern % tuple([read(fields) for read in values])
    # The last name twice: of a single one the getter gives no tuple.
    pick: Callable[[FieldsOf], tuple[object, ...]] = itemgetter(*names, names[-1])

    def render(fields: FieldsOf) -> str:
        try:
            picked = pick(fields)
        except KeyError:
            picked = (None,)
        for value in picked:
            if type(value) is not str:
                return pattern % tuple([read(fields) for read in values])
        return pattern % picked[:-1]

    return render


def _value_reader(placeholder: Placeholder, is_plain: bool) -> Callable[[FieldsOf], str]:
    """The function that gives the text to be set in for a placeholder."""
    name, default = placeholder.path.written, placeholder.default
    find = lookup(placeholder.path)

    def read(fields: FieldsOf) -> str:
        value = find(fields)
        if type(value) is str:
            return value
        if default is not None and _is_missing(value):
            return default
        value = _required(fields, value, name)
        if isinstance(value, str):
            return str(value)
        if is_plain:
            raise wrong_type(name, "string", value)
        if isinstance(value, UUID):
            return str(value)
        if not _is_number(value):
            raise wrong_type(name, "string or finite number", value)
        return _written(value)

    return read


def _is_missing(value: object) -> bool:
    """Whether there is no value; NaN is how data frames write null."""
    return value is None or value is ABSENT or (isinstance(value, float) and math.isnan(value))


def _required(fields: FieldsOf, value: object, name: str) -> object:
    """The value of a field that must have one."""
    if not _is_missing(value):
        return readable(value, name)
    there = f"the fields are {listed(fields)}" if fields else "the record has no fields"
    problem = f"is missing; {there}" if value is ABSENT else "is null"
    raise RejectedInput(MISSING_FIELD, f"field {name!r} {problem}")


def _id_text(name: str, value: object) -> str:
    """An id as text: a string, a whole number, a UUID; other numbers only from a typed column, for
    JSON writes 1.1 and 1.10 alike."""
    if isinstance(value, (str, UUID)):
        return str(value)
    if _is_number(value):
        number = whole(value)
        if number is not None:
            return str(number)
        if isinstance(value, (ColumnFloat, Decimal)):
            return _written(value)
    raise wrong_type(name, "string or int", value)


def _is_number(value: object) -> bool:
    """Whether a value is a number that a float64 could hold, whatever type it has."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int of more than 308 digits
        return False


def _written(number: object) -> str:
    """A number's own digits; a decimal's without an exponent."""
    return f"{number:f}" if isinstance(number, Decimal) else str(number)


def _check(text: str, label: str) -> None:
    """Refuse what breaks tokenizers (lone surrogates) and stores (NUL)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise RejectedInput(
            LONE_SURROGATE, f"{label} holds {code}, half of a surrogate pair, at {error.start}"
        ) from error
    if "\0" in text:
        raise RejectedInput(NUL_CHARACTER, f"{label} holds a NUL character at {text.index(chr(0))}")
