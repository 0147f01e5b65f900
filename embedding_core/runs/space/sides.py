"""The two spaces of a gate: how each is asked, with the model that makes its vectors."""

from __future__ import annotations

from collections.abc import Sequence

from embedding_core.encoder import InvalidText
from embedding_core.errors import UsageError
from embedding_core.identity import space_id
from embedding_core.lake.query.search import check_query_space
from embedding_core.lake.vectors import to_numpy
from embedding_core.protocols import Vectors
from embedding_core.quality.judgement import JudgedSpace, Side
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.records import Space
from embedding_core.runs.job import load


def side_of(column: str, space: Space, model: ModelSpec, resources: Resources) -> Side:
    """A space and the model that makes its vectors, which is loaded when the space is asked.

    Asking raises ``LakeError`` when the model is of another space now, ``UsageError`` for a query
    that is no text.
    """
    identifier = space_id(space)

    def encode(texts: Sequence[str]) -> Vectors:
        encoder = load(model, resources)
        check_query_space(encoder.space, identifier, space)
        try:
            (batch,) = encoder.encode_stream([list(texts)], "query")
        except InvalidText as error:
            raise UsageError(f"query {texts[error.index]!r} {error.why}") from error
        return to_numpy(batch.column("vector"))

    return Side(JudgedSpace(column, identifier, space.model, space.dim), space, encode)
