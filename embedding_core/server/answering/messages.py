"""What is asked and answered over the API: the shapes that stand in its OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from embedding_core.lake.query.comparisons import Operator
from embedding_core.lake.readers.feedback import (
    MOST_ID_CHARACTERS,
    MOST_QUERY_CHARACTERS,
    MOST_SESSION_CHARACTERS,
    Signal,
)
from embedding_core.lake.readers.stored_documents import StoredDocument
from embedding_core.lake.schema import VECTOR
from embedding_core.records import ColumnType, Scalar
from embedding_core.server.answering.highlights import Mark

MOST_HITS = 100
"""Hits of a query."""

Words = Annotated[str, Field(min_length=1, max_length=MOST_QUERY_CHARACTERS)]
Identifier = Annotated[str, Field(min_length=1, max_length=MOST_ID_CHARACTERS)]
JsonValue = str | int | float | bool | None


class Message(BaseModel):
    """A request; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class FilterMessage(Message):
    """A condition; rows for which it does not hold are not searched."""

    column: Identifier
    operator: Operator
    value: JsonValue | list[JsonValue] = None
    """A list for ``in`` and ``not in``; nothing for ``is missing`` and ``is there``."""


BRIDGE = "bridge"
"""In place of a vector column: the one in service, asked through a bridge by another model."""


class SearchMessage(Message):
    """A query."""

    query: Words
    k: int = Field(default=10, ge=1, le=MOST_HITS)
    """Hits."""
    filters: list[FilterMessage] = Field(default=[], max_length=32)
    """All must hold."""
    hybrid: bool = False
    """Fuse with a full-text search for the same words."""
    column: Identifier = VECTOR
    """The vector column to search in; by default that of the space in service. ``bridge``: that
    one, asked with the model of ``embedlake serve --bridge``."""


class ComparisonMessage(Message):
    """A query for two spaces of a table."""

    query: Words
    k: int = Field(default=10, ge=1, le=MOST_HITS)
    filters: list[FilterMessage] = Field(default=[], max_length=32)
    hybrid: bool = False
    columns: tuple[Identifier, Identifier]
    """Two vector columns, or one and ``bridge``."""


class FeedbackMessage(Message):
    """What somebody says of a hit."""

    table: Identifier
    query: Words
    doc_id: Identifier
    signal: Signal
    source_uri: Identifier | None = None
    chunk_id: Identifier | None = None
    rank: int | None = Field(default=None, ge=1, le=MOST_HITS)
    space_id: Identifier | None = None
    session: str | None = Field(
        default=None, max_length=MOST_SESSION_CHARACTERS, pattern=r"^[A-Za-z0-9_.-]*$"
    )
    """A key of the client's choice, or nothing."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where the time of an answer went."""

    model: float
    """The forward pass that encoded the query, alone or with others."""
    search: float
    """In the table."""
    total: float


@dataclass(frozen=True, slots=True)
class Found:
    """A hit."""

    rank: int
    score: float
    """Cosine similarity, -1 to 1; of a hybrid search the fused score of the ranks."""
    chunk_id: str
    doc_id: str
    source_uri: str
    chunk_index: int
    text: str
    marks: list[Mark]
    """Words of the query in the text: first character, and the one after the last."""
    snippet: Mark
    """The part of the text that says most."""
    metadata: Mapping[str, Scalar]
    """Whole numbers beyond 53 bits as text, bytes in base64."""


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The hits of a query, all of one version and one space."""

    table: str
    version: int
    column: str
    space_id: str
    model: str
    hits: list[Found]
    seconds: Seconds
    notice: str | None = None
    """What people should know of the table now."""


Movement = Literal["same", "up", "down", "only here"]


@dataclass(frozen=True, slots=True)
class Moved:
    """Where a hit of one space stands among those of the other."""

    chunk_id: str
    rank: int
    other_rank: int | None
    """None: not among the hits of the other space."""
    movement: Movement
    """Seen from the first space to the second: ``up`` stands nearer to the top there."""


@dataclass(frozen=True, slots=True)
class ComparisonAnswer:
    """The hits of two spaces for one query, in one version of the table."""

    answers: tuple[SearchAnswer, SearchAnswer]
    moved: tuple[list[Moved], list[Moved]]
    """A line for each hit of each answer."""
    shared: int
    """Hits that both have."""


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """A column that may be filtered by."""

    name: str
    type: ColumnType
    operators: tuple[Operator, ...]
    values: list[Scalar]
    """Values of the first rows that differ, as examples: at most 20."""


@dataclass(frozen=True, slots=True)
class SpaceInfo:
    """A space that can be asked."""

    column: str
    state: str
    """``in service``, ``ready``, ``previous``, ``building`` or ``bridge``."""
    space_id: str
    model: str
    dim: int
    filled_share: float


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A table that is served."""

    table: str
    recipe: str
    version: int
    rows: int
    spaces: list[SpaceInfo]
    columns: list[ColumnInfo]
    hybrid: bool
    """Whether there is a full-text index, which a hybrid search needs."""
    feedback: bool
    """Whether feedback is taken."""
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class TableList:
    """All tables that are served."""

    tables: list[TableInfo]
    problems: dict[str, str] = field(default_factory=dict)
    """Tables that cannot answer now, and why."""


@dataclass(frozen=True, slots=True)
class DocumentAnswer:
    """A document as the table holds it."""

    table: str
    version: int
    document: StoredDocument
    text: str
    """The passages put together: what two of them share stands once."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Feedback that is in the table now."""

    stored: int


@dataclass(frozen=True, slots=True)
class Health:
    """Whether every table answers as it should."""

    status: Literal["ok", "degraded"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request was not answered."""

    error: str
    kind: str
