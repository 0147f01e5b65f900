"""The chunk section: its options belong to the strategy that it names.

Which strategies there are is decided here, so that a recipe can be validated; what they do is in
``chunking``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import (
    CoreSchema,
    ErrorDetails,
    InitErrorDetails,
    PydanticKnownError,
    core_schema,
)

from embedding_core.recipe.section import Section
from embedding_core.records import Chunk, ColumnType, Document
from embedding_core.registry import CHUNK_STRATEGIES, Registry

if TYPE_CHECKING:
    from embedding_core.protocols import Tokenizer

DEFAULT_STRATEGY = "tokens"


class ChunkOptions(Section):
    """What every strategy has; each adds options, and takes no others."""

    strategy: str
    """How documents are cut."""
    tokenizer: str | None = None
    """Model whose tokenizer counts; default: that of the model the table was made with. It stays
    with the rows when another model is put in service; another one cuts every file again."""

    def hashed(self) -> dict[str, Any]:
        """The options that decide rows; the tokenizer counts by its content instead."""
        return self.model_dump(exclude={"tokenizer"})

    @property
    def columns(self) -> Mapping[str, ColumnType]:
        """Columns that the strategy adds to the table; ``Chunk.metadata`` has their values."""
        return {}


Options = TypeVar("Options", bound=ChunkOptions)


class Chunker(Protocol):
    """Cuts documents into chunks."""

    def chunk(self, document: Document) -> Iterable[Chunk]:
        """Chunks in order, indexed from 0, each ``text[char_start:char_end]`` without white space
        at its ends, unless the strategy promises exact windows. Every character that is not white
        space is in a chunk, and no chunk is blank or within the one before it. The document's title
        is in every ``context`` and counted in ``n_tokens``. Raises ``RejectedInput`` for a document
        whose file cannot be cut here.
        """
        ...


class ChunkStrategy(Protocol[Options]):
    """How documents are cut. Only the strategy's own options are part of ``rows_id``."""

    @property
    def options(self) -> type[Options]:
        """The chunk section's model, with ``strategy: Literal[<name>]``."""
        ...

    def settle(self, options: Options, limit: int) -> Options:
        """The options with their lengths filled in for a model that takes ``limit`` tokens.

        Raises ``UsageError`` when a length does not fit the model, or another length.
        """
        ...

    def chunker(self, options: Options, tokenizer: Tokenizer, limit: int) -> Chunker:
        """The chunker that settled options ask for.

        Raises ``UsageError`` when they are not settled, are above ``limit``, or leave no room
        beside the special tokens.
        """
        ...


STRATEGIES = Registry[ChunkStrategy[Any]](
    CHUNK_STRATEGIES,
    {
        "tokens": "embedding_core.chunking.tokens.windowed:TOKENS",
        "characters": "embedding_core.chunking.exact:CHARACTERS",
        "sentences": "embedding_core.chunking.structure.sentences:SENTENCES",
        "markdown": "embedding_core.chunking.structure.markdown:MARKDOWN",
        "code": "embedding_core.chunking.structure.code:CODE",
        "none": "embedding_core.chunking.whole:NONE",
    },
    ChunkStrategy,
)


def sections() -> dict[str, type[BaseModel]]:
    """The chunk sections that a recipe may have, by strategy."""
    return {name: strategy.options for name, strategy in STRATEGIES.working().items()}


class ByStrategy:
    """Pydantic's view of the chunk section: the model of the strategy that it names."""

    @staticmethod
    def __get_pydantic_core_schema__(source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(_validated)

    @staticmethod
    def __get_pydantic_json_schema__(
        schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        models = sections().values()
        return {"oneOf": [handler(model.__pydantic_core_schema__) for model in models]}


def _validated(section: object) -> ChunkOptions:
    if isinstance(section, ChunkOptions):
        return section
    if not isinstance(section, Mapping):
        raise PydanticKnownError("model_type", {"class_name": "the chunk section"})
    name = section.get("strategy", DEFAULT_STRATEGY)
    if name not in STRATEGIES.names():
        expected = ", ".join(map(repr, STRATEGIES.names()))
        written = str(name)[:80]
        tag = written if written.isprintable() else ascii(written)
        context = {"discriminator": "strategy", "tag": tag, "expected_tags": expected}
        raise PydanticKnownError("union_tag_invalid", context)
    options = STRATEGIES.get(name).options
    try:
        chosen: ChunkOptions = options.model_validate(section)
    except ValidationError as error:
        problems = [_below(name, problem) for problem in error.errors()]
        raise ValidationError.from_exception_data(error.title, problems) from None
    return chosen


def _below(strategy: str, problem: ErrorDetails) -> InitErrorDetails:
    """The same problem with the strategy in its place, as a tagged union of pydantic's has it."""
    return InitErrorDetails(
        type=problem["type"],
        loc=(strategy, *problem["loc"]),
        input=problem["input"],
        ctx=problem.get("ctx", {}),
    )
