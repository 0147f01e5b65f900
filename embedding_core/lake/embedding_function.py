"""The embedding function in a table's metadata, by which LanceDB itself searches for words.

Knows how LanceDB stores such a function and looks it up, not how a model is loaded. LanceDB finds
the function by its name among those that the process registered; the name is that of the module
that registers it, so that ``KeyError: 'embedlake.lancedb_client'`` says what to import.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import create_model

from embedding_core.errors import LakeError, UsageError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.protocols import TextEncoder
from embedding_core.recipe import ModelSpec
from embedding_core.records import Space

FUNCTION = "embedlake.lancedb_client"
"""Name of the function in LanceDB's registry."""
METADATA_KEY = b"embedding_functions"
"""LanceDB's own key in the metadata of a table's schema."""
NOT_STORED = frozenset(["over_length"])
"""Options of a model that have no effect on its vectors of queries and chunks."""
_KEPT = "_functions_of_embedlake"
"""Attribute of an open table: its metadata and the functions that were made of it."""


def function_metadata(model: ModelSpec, space: Space, text: str, vector: str) -> bytes:
    """The function's entry in the table's schema: the model by name, the space by its digest.

    It says where the model is and how it computes; it holds no credentials and no device.
    """
    pinned = model.pinned(space.revision)
    stored = pinned.model_dump(exclude=set(NOT_STORED)) | {"space_id": space_id(space)}
    entry = {
        "name": FUNCTION, "model": stored, "source_column": text, "vector_column": vector,
    }  # fmt: skip
    return json.dumps([entry]).encode()


def register(in_use: Callable[[ModelSpec], AbstractContextManager[TextEncoder]]) -> None:
    """Make the function known to LanceDB in this process; ``in_use`` gives models, each to one
    thread at a time."""
    from lancedb.embeddings import EmbeddingFunction  # a second to import
    from lancedb.embeddings import register as register_with_lancedb

    class Function(EmbeddingFunction):  # type: ignore[misc]  # lancedb has no types
        """Texts to vectors of the table's space."""

        space_id: str

        def ndims(self) -> int:
            """Length of a vector."""
            with self._encoder() as encoder:
                return encoder.space.dim

        def compute_query_embeddings(self, query: str, *_: Any, **__: Any) -> list[np.ndarray]:
            """The query's vector, with the query prompt."""
            if not query.strip():
                raise UsageError("the query has no words; write what to look for")
            with self._encoder() as encoder:
                return list(encoder.encode_queries([query]))

        def compute_source_embeddings(self, texts: Any, *_: Any, **__: Any) -> list[np.ndarray]:
            """Vectors of rows that someone adds through LanceDB."""
            with self._encoder() as encoder:
                return list(encoder.encode_documents(self.sanitize_input(texts)))

        def compute_query_embeddings_with_retry(self, *args: Any, **named: Any) -> Any:
            """Without a second try: LanceDB would try for two minutes, whatever the error."""
            return self.compute_query_embeddings(*args, **named)

        def compute_source_embeddings_with_retry(self, *args: Any, **named: Any) -> Any:
            """Without a second try, as for queries."""
            return self.compute_source_embeddings(*args, **named)

        @contextmanager
        def _encoder(self) -> Iterator[TextEncoder]:
            model = ModelSpec.model_validate(self.model_dump(include=set(ModelSpec.model_fields)))
            with in_use(model) as encoder:
                identifier = space_id(encoder.space)
                if identifier != self.space_id:
                    raise LakeError(
                        f"the model {model.name} gives space {identifier[:SHOWN_DIGITS]} here, the "
                        f"table is in space {self.space_id[:SHOWN_DIGITS]}; make the model "
                        "available that made the table"
                    )
                yield encoder

    options: dict[str, Any] = {
        name: (field.annotation, field)
        for name, field in ModelSpec.model_fields.items()
        if name not in NOT_STORED
    }
    function = create_model("EmbedlakeFunction", __base__=Function, **options)
    register_with_lancedb(FUNCTION)(function)


def follow_changes() -> None:
    """Make LanceDB read the function of an open table again when the table names another.

    LanceDB reads it once for as long as a table is open, though the table itself moves on: after a
    promote, queries of the old model would be compared with vectors of the new space.
    """
    from lancedb.table import LanceTable

    read_once = LanceTable.__dict__["embedding_functions"]
    if not isinstance(read_once, cached_property):
        return  # done already

    def embedding_functions(table: Any) -> Any:
        named = (table.schema.metadata or {}).get(METADATA_KEY)
        kept = table.__dict__.get(_KEPT)
        if kept is None or kept[0] != named:
            kept = table.__dict__[_KEPT] = named, read_once.func(table)
        return kept[1]

    LanceTable.embedding_functions = property(embedding_functions, doc=read_once.__doc__)
