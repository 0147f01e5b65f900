"""Ask the space in service with a model that is not in service yet, through a bridge."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from embedding_core.encoder.engines import describe_model
from embedding_core.errors import LakeError, UsageError
from embedding_core.identity import SHOWN_DIGITS, space_id
from embedding_core.lake.snapshot import Snapshot
from embedding_core.lake.spaces.bridges import read_bridge
from embedding_core.lake.vectors import to_lists, to_numpy
from embedding_core.protocols import Kind, TextEncoder, Vectors
from embedding_core.quality.bridge import Bridge
from embedding_core.recipe import ModelSpec
from embedding_core.records import ModelWork, Space


@dataclass(slots=True)
class BridgedEncoder:
    """A ``TextEncoder`` whose queries go through a bridge. It encodes no documents: a mapped vector
    of a row would stand among real ones."""

    space: Space
    """The space that the bridge leads to."""
    encoder: TextEncoder
    """The encoder of the space that it leads from."""
    bridge: Bridge

    @property
    def work(self) -> ModelWork:
        """How the encoder was used."""
        return self.encoder.work

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """(n_texts, dim) in ``space``, unit norm, input order."""
        return self.bridge.mapped(self.encoder.encode_queries(texts))

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Raise ``UsageError``."""
        raise UsageError(
            f"a bridge turns queries alone; encode documents with {self.space.model}, the model of "
            "the space"
        )

    def encode_stream(
        self, batches: Iterable[Sequence[str] | pa.Array], kind: Kind = "document"
    ) -> Iterator[pa.RecordBatch]:
        """The batches of the encoder with their vectors mapped; queries alone."""
        if kind != "query":
            self.encode_documents([])
        for batch in self.encoder.encode_stream(batches, kind):
            column = batch.schema.get_field_index("vector")
            vectors = self.bridge.mapped(to_numpy(batch.column(column)))
            lists = pa.list_(pa.float32(), self.space.dim)
            missing = batch.column(column).is_null().to_numpy(zero_copy_only=False)
            yield batch.set_column(column, "vector", to_lists(vectors, lists, empty=missing))


def has_bridge(snapshot: Snapshot, model: ModelSpec) -> bool:
    """Whether a bridge leads from a model's space to the one in service. Raises ``ModelError`` for
    a model that cannot be found."""
    new_id = space_id(describe_model(model).space)
    return read_bridge(snapshot.table, new_id, snapshot.space()[0]) is not None


def bridge_from(snapshot: Snapshot, new_space: Space) -> Bridge | None:
    """The bridge from another space to the one in service; None from the latter to itself.

    Raises ``LakeError`` when the table keeps no bridge between the two, or a damaged one.
    """
    identifier, space = snapshot.space()
    new_id = space_id(new_space)
    if new_id == identifier:
        return None
    matrix = read_bridge(snapshot.table, new_id, identifier)
    if matrix is None:
        raise LakeError(
            f"no bridge leads from space {new_id[:SHOWN_DIGITS]} ({new_space.model}) to space "
            f"{identifier[:SHOWN_DIGITS]} ({space.model}), which is in service in "
            f"{snapshot.table.uri}; a sample of the new model makes one and keeps it if it keeps "
            "enough",
            action="reembed",
        )
    if matrix.shape != (new_space.dim, space.dim):
        raise LakeError(
            f"the bridge from space {new_id[:SHOWN_DIGITS]} to {identifier[:SHOWN_DIGITS]} is a "
            f"matrix of {matrix.shape}, not {(new_space.dim, space.dim)}; make it again",
            action="reembed",
        )
    return Bridge(matrix)


def bridged(snapshot: Snapshot, encoder: TextEncoder) -> TextEncoder:
    """An encoder of the space in service that asks with ``encoder``'s model.

    It is ``encoder`` itself when that is of the space in service. Raises as ``bridge_from``.
    """
    bridge = bridge_from(snapshot, encoder.space)
    return encoder if bridge is None else BridgedEncoder(snapshot.space()[1], encoder, bridge)
