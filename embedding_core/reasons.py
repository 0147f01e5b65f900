"""Every reason for which something is left out: its meaning, what heals it, its weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Healing = Literal["next run", "other device", "edit"]
"""``next run``: every run tries the file again; ``other device``: ``retry-rejected`` does;
``edit``: the file or the recipe has to change."""
Weight = Literal["file", "record", "chunk", "note", "choice"]
"""What is left out; a ``note`` leaves nothing out, a ``choice`` what the recipe chose to."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was left out. A plugin's format may have reasons beside these."""

    name: str
    """Fixed word that is stored and grouped by."""
    meaning: str
    """For a person; the table in docs/operations.md is made of these."""
    heals: Healing
    weight: Weight

    def __str__(self) -> str:
        return self.name


# Files

UNREADABLE = Reason("unreadable", "the file cannot be opened or read", "next run", "file")
CHANGED = Reason("changed", "the file changed while it was read", "next run", "file")
FAILED = Reason("failed", "every attempt at the file failed", "next run", "file")
UNKNOWN_FORMAT = Reason("unknown_format", "no format has its content or name", "edit", "file")
WRONG_FORMAT = Reason("wrong_format", "it cannot be read compressed", "edit", "file")
CORRUPT_COMPRESSED = Reason("corrupt_compressed", "the compressed data is damaged", "edit", "file")
TRUNCATED_COMPRESSED = Reason(
    "truncated_compressed", "the compressed data ends too early", "edit", "file"
)
CORRUPT_PARQUET = Reason("corrupt_parquet", "it cannot be read as Parquet", "edit", "file")
CORRUPT_ARROW = Reason("corrupt_arrow", "it cannot be read as Arrow", "edit", "file")
CORRUPT_PDF = Reason("corrupt_pdf", "it cannot be read as PDF", "edit", "file")
CORRUPT_OFFICE = Reason("corrupt_office", "it cannot be read as an Office file", "edit", "file")
ENCRYPTED = Reason("encrypted", "it asks for a password", "edit", "file")
MISSING_LIBRARY = Reason(
    "missing_library",
    "a library that its format or its chunks need is not installed",
    "next run",
    "file",
)
MISSING_COLUMN = Reason("missing_column", "it has no column that the recipe needs", "edit", "file")
DUPLICATE_COLUMN = Reason("duplicate_column", "it has two columns of a name", "edit", "file")
UNCLOSED_QUOTE = Reason("unclosed_quote", "a quote is never closed", "edit", "file")
TEXT_TOO_LONG = Reason("text_too_long", "a text above the limit for a document", "edit", "file")
LENGTH_REFUSED = Reason(
    "length_refused",
    "a chunk is longer than the model takes, and the recipe says `over_length: error`",
    "edit",
    "file",
)
MOSTLY_WASTE = Reason(
    "mostly_waste", "hardly anything but blank lines or rejected records", "edit", "file"
)

# Records

MALFORMED_JSON = Reason("malformed_json", "the line is not strict JSON", "edit", "record")
NOT_AN_OBJECT = Reason("not_an_object", "the line is JSON but no object", "edit", "record")
TOO_DEEP = Reason("too_deep", "nested too deep to be parsed", "edit", "record")
LINE_TOO_LONG = Reason("line_too_long", "the line is too long to be parsed", "edit", "record")
MALFORMED_FRONT_MATTER = Reason(
    "malformed_front_matter", "the fields above the text are no YAML or TOML", "edit", "record"
)
MALFORMED_ROW = Reason("malformed_row", "quotes of the row are wrong", "edit", "record")
RAGGED_ROW = Reason(
    "ragged_row", "the row has more or fewer cells than there are columns", "edit", "record"
)
TOO_MANY_VALUES = Reason(
    "too_many_values", "more cells, values or parts than can be read", "edit", "record"
)
CORRUPT_HTML = Reason("corrupt_html", "the markup cannot be parsed", "edit", "record")
NO_TEXT = Reason(
    "no_text", "a page, slide or file with pictures or navigation alone", "edit", "record"
)
INVALID_UTF8 = Reason("invalid_utf8", "bytes that are not UTF-8", "edit", "record")
LONE_SURROGATE = Reason("lone_surrogate", "half of a surrogate pair", "edit", "record")
NUL_CHARACTER = Reason("nul_character", "a NUL character", "edit", "record")
MISSING_FIELD = Reason(
    "missing_field", "a field the recipe needs is missing, null or an empty id", "edit", "record"
)
WRONG_TYPE = Reason(
    "wrong_type", "a field is not of the type that the recipe declares", "edit", "record"
)
EMPTY_TEXT = Reason("empty_text", "the text is empty or only white space", "edit", "record")
BAD_CONVERSATION = Reason(
    "bad_conversation", "its turns are not as source.conversation has them", "edit", "record"
)
MAP_FAILED = Reason(
    "map_failed", "source.map raised, took too long or gave what is no document", "edit", "record"
)
NO_DOCUMENT = Reason("no_document", "source.map made no document of the record", "edit", "choice")
DUPLICATE_ID = Reason("duplicate_id", "the id was used before in this file", "edit", "record")
DUPLICATE_TEXT = Reason(
    "duplicate_text",
    "another document of the source has the same text, and `source.deduplicate` keeps that",
    "edit",
    "choice",
)

# Chunks

OVER_LENGTH = Reason("over_length", "the chunk is longer than the model takes", "edit", "chunk")
OUT_OF_MEMORY = Reason(
    "out_of_memory",
    "the text does not fit the device's memory even alone; set a smaller max_tokens or use a "
    "larger device",
    "other device",
    "chunk",
)
NON_FINITE = Reason(
    "non_finite_vector",
    "the model gives no finite vector for this text, not even in fp32; leave it out, or check the "
    "model's weights",
    "other device",
    "chunk",
)
NO_WIDER_TYPE = Reason(
    "no_wider_type",
    "half precision gives no finite vector for this text, and the weights in a wider type do not "
    "fit the device; use a larger device, or dtype bf16 if it was fp16",
    "other device",
    "chunk",
)
ZERO_VECTOR = Reason(
    "zero_vector",
    "the server gives a vector of zeros, which has no direction, for this text; leave it out, or "
    "look at the server's log",
    "other device",
    "chunk",
)
REFUSED_BY_SERVER = Reason(
    "refused_by_server",
    "the server takes other texts and not this one, as for one that is too long for it; set a "
    "smaller model.max_tokens, or start the server with a larger limit",
    "other device",
    "chunk",
)
TRUNCATED = Reason("truncated", "the vector covers the beginning of the text", "edit", "note")
UNKNOWN_TOKENS = Reason("unknown_tokens", "the model does not know the words", "edit", "note")

ALL = {reason.name: reason for reason in list(globals().values()) if isinstance(reason, Reason)}
CHOSEN = frozenset(name for name, reason in ALL.items() if reason.weight == "choice")
RETRIED = frozenset(name for name, reason in ALL.items() if reason.heals == "next run")
HEALED_ELSEWHERE = tuple(name for name, reason in ALL.items() if reason.heals == "other device")
