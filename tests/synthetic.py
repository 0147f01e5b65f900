"""Tables of made-up rows and clustered vectors, written without a source and without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_core.encoder.engines import describe_model
from embedding_core.identity import chunk_id, text_hash
from embedding_core.lake import schema
from embedding_core.lake.ownership.owner import ensure_table
from embedding_core.lake.rows.commit import replace_rows, write_fragments
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe
from embedding_core.runs.cutting import cutting_of

ROWS_PER_BATCH = 8_192
NOISE = 0.8
"""Spread around a cluster's centre, per dimension, against the centres' own spread of 1."""
WORDS = [f"word{number}" for number in range(1_000)]


@dataclass(frozen=True, slots=True)
class Clusters:
    """A mixture of Gaussians on the unit sphere."""

    centres: npt.NDArray[np.float32]

    @classmethod
    def make(cls, n_clusters: int, dim: int, seed: int = 0) -> Clusters:
        """Centres drawn from a normal distribution."""
        drawn = np.random.default_rng(seed).standard_normal((n_clusters, dim))
        return cls(drawn.astype(np.float32))

    def draw(self, n_vectors: int, seed: int) -> npt.NDArray[np.float32]:
        """(n_vectors, dim) float32, unit norm."""
        chance = np.random.default_rng(seed)
        n_clusters, dim = self.centres.shape
        spread = chance.standard_normal((n_vectors, dim), dtype=np.float32) * np.float32(NOISE)
        vectors = self.centres[chance.integers(0, n_clusters, n_vectors)] + spread
        unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def rows(
    recipe: Recipe,
    files: Sequence[tuple[str, str]],
    rows_per_file: int,
    clusters: Clusters,
    seed: int = 0,
    no_vector: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Rows of some (URI, file key), in order, in the table's schema but for its metadata."""
    arrow_schema = arrow_schema_of(recipe)
    per_batch = max(1, ROWS_PER_BATCH // rows_per_file)
    for start in range(0, len(files), per_batch):
        group = files[start : start + per_batch]
        n_rows = len(group) * rows_per_file
        vectors = clusters.draw(n_rows, seed * 1_000_003 + start)
        yield _batch(group, rows_per_file, None if no_vector else vectors, arrow_schema)


def arrow_schema_of(recipe: Recipe) -> pa.Schema:
    """Columns of the recipe's table."""
    space = describe_model(recipe.model).space
    return schema.row_schema(recipe).append(schema.vector_field(space))


def make_table(recipe: Recipe) -> Table:
    """The recipe's table, made when it is missing."""
    info = describe_model(recipe.model)
    return ensure_table(recipe, info.space, cutting_of(recipe, info, None).stored()).table


def add_files(
    recipe: Recipe,
    uris: Sequence[str],
    rows_per_file: int,
    clusters: Clusters,
    seed: int = 0,
    no_vector: bool = False,
) -> Table:
    """Commit made-up files to the recipe's table, which is made when missing."""
    table = table_of(recipe)
    if not table.exists():
        make_table(recipe)
    files = [(uri, text_hash(f"{uri} {seed}")) for uri in uris]
    batches = rows(recipe, files, rows_per_file, clusters, seed, no_vector)
    fragments = write_fragments(table, batches, arrow_schema_of(recipe))
    replace_rows(table, "file_key", (), fragments)
    return table


def _batch(
    files: Sequence[tuple[str, str]],
    rows_per_file: int,
    vectors: npt.NDArray[np.float32] | None,
    arrow_schema: pa.Schema,
) -> pa.RecordBatch:
    index = list(range(rows_per_file)) * len(files)
    uris = [uri for uri, _ in files for _ in range(rows_per_file)]
    texts = [
        " ".join(WORDS[(7 * number + len(uri) + step * 13) % len(WORDS)] for step in range(8))
        for uri, number in zip(uris, index, strict=True)
    ]
    hashes = [text_hash(text) for text in texts]
    n_rows = len(texts)
    vector = arrow_schema.field(schema.VECTOR).type
    columns = {
        "chunk_id": [
            chunk_id(uri, "d", number, hashed)
            for uri, number, hashed in zip(uris, index, hashes, strict=True)
        ],
        "file_key": [key for _, key in files for _ in range(rows_per_file)],
        "source_uri": uris,
        "doc_id": ["d"] * n_rows,
        "chunk_index": index,
        "text": texts,
        "context": [None] * len(texts),
        "text_hash": hashes,
        "n_tokens": [8] * n_rows,
        "char_start": [0] * n_rows,
        "char_end": [len(text) for text in texts],
        schema.VECTOR: (
            pa.nulls(n_rows, vector)
            if vectors is None
            else pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.ravel()).cast(vector.value_type), vector.list_size
            )
        ),
    }
    return pa.RecordBatch.from_pydict(columns, schema=arrow_schema)
