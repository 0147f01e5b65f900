"""The formats of a source: which there are, and the options that each of them takes.

Both are decided here, so that a recipe can be validated; how bytes become records is in
``sources.formats``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from io import RawIOBase
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import (
    BaseModel,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    create_model,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticKnownError, core_schema

from embedding_core.recipe.section import Section
from embedding_core.records import SourceFile, Span
from embedding_core.registry import FORMATS, Registry

if TYPE_CHECKING:
    from embedding_core.sources.formats.format import Fields, Fit, Flaw, Record


class FormatOptions(Section):
    """What a format can be told; each has its own options and takes no others."""

    def hashed(self) -> dict[str, Any]:
        """The options that are not the defaults: every one of them decides rows."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Format(Protocol):
    """One file format: bytes in, records out. Streams; memory is bounded by a record or a batch.

    Raises ``RejectedInput`` when the file as a whole is bad, possibly after some records.
    """

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Ends of file names, lower case; they are the default of ``source.include`` too."""
        ...

    @property
    def options(self) -> FormatOptions:
        """What it is told: the defaults, or what the recipe says of it."""
        ...

    @property
    def is_text(self) -> bool:
        """Whether a file is read from beginning to end as text, so that it may be compressed."""
        ...

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """How well the content fits the format, by its first bytes; ``stream`` is the file."""
        ...

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """The records of a file, or of one of its ``spans``, in file order.

        ``stream`` is unbuffered and at the start of the file; seekable, unless it is a compressed
        text. ``fields`` are the only ones needed; a record may have others too, and a path's value
        under the whole path instead of the field that the path begins at.
        """
        ...

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """Spans of about that size that can be read apart; none: the file is read as a whole."""
        ...

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """Stored bytes per record, by a look at the file; None when it cannot be told."""
        ...


KNOWN_FORMATS = Registry[Format](
    FORMATS,
    {
        "jsonl": "embedding_core.sources.formats.jsonl:JSON_LINES",
        "json": "embedding_core.sources.formats.json_list:JSON",
        "parquet": "embedding_core.sources.formats.columnar.parquet:PARQUET",
        "arrow": "embedding_core.sources.formats.columnar.arrow:ARROW",
        "csv": "embedding_core.sources.formats.delimited:CSV",
        "markdown": "embedding_core.sources.formats.prose.markdown:MARKDOWN",
        "html": "embedding_core.sources.formats.prose.html:HTML",
        "pdf": "embedding_core.sources.formats.prose.pdf:PDF",
        "docx": "embedding_core.sources.formats.prose.docx:DOCX",
        "pptx": "embedding_core.sources.formats.prose.pptx:PPTX",
        "text": "embedding_core.sources.formats.prose.text:TEXT",
    },
    Format,
)


def section() -> type[BaseModel]:
    """The section ``source.formats`` as a model: a key for each format that has options."""
    options = {name: type(format.options) for name, format in KNOWN_FORMATS.working().items()}
    fields: dict[str, Any] = {
        name: (kind, kind()) for name, kind in options.items() if kind.model_fields
    }
    with warnings.catch_warnings():  # a field may be called json, as a method of pydantic's is
        warnings.simplefilter("ignore", UserWarning)
        return create_model("FormatsSpec", __base__=Section, **fields)


class ByFormat:
    """Pydantic's view of ``source.formats``: options by the name of a format."""

    @staticmethod
    def __get_pydantic_core_schema__(source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_validated)

    @staticmethod
    def __get_pydantic_json_schema__(
        schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(section().__pydantic_core_schema__)


def _validated(formats: object) -> dict[str, FormatOptions]:
    if not isinstance(formats, Mapping):
        raise PydanticKnownError("model_type", {"class_name": "the section of formats"})
    options: dict[str, FormatOptions] = {}
    problems: list[InitErrorDetails] = []
    for name, written in formats.items():
        if name not in KNOWN_FORMATS.names():
            problems.append(InitErrorDetails(type="extra_forbidden", loc=(name,), input=written))
            continue
        kind = type(KNOWN_FORMATS.get(name).options)
        try:
            options[name] = kind.model_validate(written)
        except ValidationError as error:
            problems += [
                InitErrorDetails(
                    type=problem["type"],
                    loc=(name, *problem["loc"]),
                    input=problem["input"],
                    ctx=problem.get("ctx", {}),
                )
                for problem in error.errors()
            ]
    if problems:
        raise ValidationError.from_exception_data("formats", problems)
    return options
