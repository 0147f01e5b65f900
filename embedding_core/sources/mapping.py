"""From a raw record to a validated document: id, text, metadata, in that order.

The first rule a record breaks is the reason of its reject. Text and ids are kept exactly as they
are, without any normalisation: offsets and joins refer to them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from embedding_core.errors import RejectedInput
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Reject, Scalar
from embedding_core.sources.metadata import convert
from embedding_core.sources.records import Flaw, Record, Undecodable, shown, type_name
from embedding_core.sources.template import TextTemplate

ID_DIGEST_BYTES = 16
"""Of an id, to tell ids apart: 10⁹ ids collide with a chance of 10⁻²¹."""


class RecordMapper:
    """Maps the records of ONE file, or of a slice of one; remembers the ids it has given out.

    Of several usable records with one id the first wins and the others are rejected as
    ``duplicate_id``. Memory: a 16-byte hash per document, only when an id field is declared.
    """

    def __init__(
        self, spec: SourceSpec, source_uri: str, duplicates: frozenset[int] = frozenset()
    ) -> None:
        self._spec = spec
        self._duplicates = duplicates  # positions whose id an earlier slice has given out
        self._uri = source_uri
        self._template = TextTemplate.parse(spec.text)
        self._seen: set[bytes] = set()

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field the mapping reads, each once."""
        declared = [self._spec.id] if self._spec.id else []
        return tuple(dict.fromkeys([*declared, *self._template.fields, *self._spec.metadata]))

    def map(self, record: Record | Flaw) -> Document | Reject:
        """The document, or the reject that says which rule the record broke."""
        if isinstance(record, Flaw):
            return Reject(self._uri, None, record.position, record.reason, record.detail)
        doc_id = None
        try:
            doc_id = self._doc_id(record)
            text = self._text(record.fields)
            metadata = self._metadata(record.fields)
            self._claim(doc_id, record.position)
        except RejectedInput as error:
            return Reject(self._uri, doc_id, record.position, error.reason, error.detail)
        return Document(doc_id, record.position, text, metadata)

    def _doc_id(self, record: Record) -> str:
        if self._spec.id is None:
            return str(record.position)
        value = _required(record.fields, self._spec.id)
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise _wrong_type(self._spec.id, "string or int", value)
        doc_id = str(value)
        if not doc_id:
            raise RejectedInput("missing_field", f"field {self._spec.id!r} is an empty string")
        return _clean(doc_id, f"field {self._spec.id!r}")

    def _text(self, fields: Mapping[str, object]) -> str:
        values = {name: self._text_value(fields, name) for name in self._template.fields}
        text = _clean(self._template.render(values), "the text")
        if not text.strip():
            raise RejectedInput("empty_text", "the text is empty or only white space")
        return text

    def _text_value(self, fields: Mapping[str, object], name: str) -> str:
        value = _required(fields, name)
        if isinstance(value, str):
            return value
        if self._template.is_plain:
            raise _wrong_type(name, "string", value)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):  # type: ignore[arg-type]
            raise _wrong_type(name, "string or number", value)
        return str(value)

    def _metadata(self, fields: Mapping[str, object]) -> dict[str, Scalar]:
        values: dict[str, Scalar] = {}
        for name, declared in self._spec.metadata.items():
            value = _readable(fields.get(name), name)
            values[name] = convert(value, declared, name)
            if isinstance(value, str):
                _clean(value, f"field {name!r}")
        return values

    def _claim(self, doc_id: str, position: int) -> None:
        """Only usable records claim their id, so a bad first one does not hide a good second."""
        if self._spec.id is None:
            return
        key = hashlib.blake2b(doc_id.encode(), digest_size=ID_DIGEST_BYTES).digest()
        if key in self._seen or position in self._duplicates:
            self._seen.add(key)
            raise RejectedInput(
                "duplicate_id",
                f"id {shown(doc_id)} was already used in this file; the first record is kept",
            )
        self._seen.add(key)


def _required(fields: Mapping[str, object], name: str) -> object:
    value = _readable(fields.get(name), name)
    if value is None:
        problem = "is null" if name in fields else "is missing"
        raise RejectedInput("missing_field", f"field {name!r} {problem}")
    return value


def _readable(value: object, name: str) -> object:
    if isinstance(value, Undecodable):
        raise RejectedInput(value.reason, f"field {name!r}: {value.detail}")
    return value


def _wrong_type(name: str, expected: str, value: object) -> RejectedInput:
    return RejectedInput(
        "wrong_type",
        f"field {name!r}: expected {expected}, got {type_name(value)} {shown(value)}",
    )


def _clean(text: str, what: str) -> str:
    """Refuse what breaks tokenizers (lone surrogates) and stores (NUL)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        raise RejectedInput(
            "lone_surrogate", f"{what} holds {code}, half of a surrogate pair, at {error.start}"
        ) from error
    if "\0" in text:
        raise RejectedInput(
            "nul_character", f"{what} holds a NUL character at {text.index(chr(0))}"
        )
    return text
