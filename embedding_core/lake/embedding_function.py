"""What lets LanceDB itself search a table by words: the embedding function its metadata names.

Knows how LanceDB stores and finds such a function, not how a model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from embedding_core.errors import LakeError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.recipe import ModelSpec
from embedding_core.records import Space
from embedding_core.store.storage import StorageSpec

FUNCTION = "embedlake"
"""Name of the function in LanceDB's registry."""
METADATA_KEY = b"embedding_functions"
"""LanceDB's own key in the metadata of a table's schema."""


class TextEncoder(Protocol):
    """What the function needs of an encoder; float32 (n, dim), unit norm, input order."""

    space: Space

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """With the query prompt."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """With the document prompt."""
        ...


def function_metadata(model: ModelSpec, space: Space, text: str, vector: str) -> bytes:
    """What the table's schema says of the function: the model by name, the space by its digest.

    Where the model is and how it runs is all there is to store: no credentials, no device.
    """
    pinned = model.pinned(space.revision)
    stored = pinned.model_dump(exclude={"over_length"}) | {"space_id": space_id(space)}
    entry = {
        "name": FUNCTION, "model": stored, "source_column": text, "vector_column": vector,
    }  # fmt: skip
    return json.dumps([entry]).encode()


def register(load: Callable[[ModelSpec], TextEncoder]) -> None:
    """Make the function known to LanceDB in this process; models come from ``load``."""
    from lancedb.embeddings import EmbeddingFunction  # a second to import
    from lancedb.embeddings import register as register_with_lancedb

    @register_with_lancedb(FUNCTION)
    class EmbedlakeFunction(EmbeddingFunction):  # type: ignore[misc]  # lancedb has no types
        """Texts to vectors of the table's space."""

        name: str
        space_id: str
        revision: str | None = None
        dtype: str = "auto"
        dim: int | None = None
        max_tokens: int | None = None
        allow_unverified: bool = False
        adapter: str | None = None
        adapter_revision: str | None = None
        storage: StorageSpec = StorageSpec()

        def ndims(self) -> int:
            """Length of a vector."""
            return self._encoder().space.dim

        def compute_query_embeddings(self, query: str, *_: Any, **__: Any) -> list[np.ndarray]:
            """The query's vector, with the query prompt."""
            return list(self._encoder().encode_queries([query]))

        def compute_source_embeddings(self, texts: Any, *_: Any, **__: Any) -> list[np.ndarray]:
            """Vectors of rows that someone adds through LanceDB."""
            return list(self._encoder().encode_documents(self.sanitize_input(texts)))

        def compute_query_embeddings_with_retry(self, *given: Any, **named: Any) -> Any:
            """At once: LanceDB would try for two minutes, whatever the error."""
            return self.compute_query_embeddings(*given, **named)

        def compute_source_embeddings_with_retry(self, *given: Any, **named: Any) -> Any:
            """Likewise."""
            return self.compute_source_embeddings(*given, **named)

        def _encoder(self) -> TextEncoder:
            given = self.model_dump(include=set(ModelSpec.model_fields))
            encoder = load(ModelSpec.model_validate(given))
            found = space_id(encoder.space)
            if found != self.space_id:
                raise LakeError(
                    f"the model {self.name} gives space {found[:SHOWN_DIGITS]} here, the table is "
                    f"in space {self.space_id[:SHOWN_DIGITS]}; make the model available that made "
                    "the table"
                )
            return encoder
