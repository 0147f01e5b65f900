"""Tables to look at, with vectors and texts as no source would give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedding_core.lake.rows.commit import replace_rows, write_fragments
from embedding_core.lake.table import table_of
from embedding_core.recipe import Recipe
from tests.driver import recipe_for, run, write_jsonl
from tests.synthetic import arrow_schema_of

FIELDS = {"lang": "string", "year": "int", "score": "float", "seen": "timestamp", "good": "bool"}
HOSTILE = (
    "<script>window.harmed = 1</script>",
    "</script><script>window.harmed = 1</script>",
    '"><img src=x onerror="window.harmed = 1">',
    "<!--<script>",
    "]]>&lt;b&gt; {{ 7 * 7 }} {% raw %} ${7 * 7}",
    "line\u2028separator\u2029paragraph",
    "\u202eright to left, never ended",
    "\u2066\u2067isolates",
    "\x0b\x1b[31m control \x7f characters",
    "עברית and english",
    "$x^2 formula",
)


def documents(n_rows: int) -> list[dict[str, Any]]:
    """Records with metadata, some of it missing."""
    return [
        {
            "id": f"d{n}",
            "text": f"text number {n} about {'cats and milk' if n % 2 else 'dogs and bones'}",
            "lang": ("en", "de", "fr")[n % 3],
            "year": 1990 + n,
            "score": n / 7,
            "seen": f"2026-01-{1 + n % 28:02}T10:00:00Z",
            "good": n % 2 == 0,
        }
        for n in range(n_rows)
    ] + [{"id": "bare", "text": "a text without metadata"}]


def hostile_documents() -> list[dict[str, Any]]:
    """Texts, ids and metadata that try to be more than text."""
    return [
        {"id": f"{n} {text}", "text": f"{text} and words {n}", "lang": text}
        for n, text in enumerate(HOSTILE)
    ]


def embedded(folder: Path, records: Sequence[Mapping[str, Any]], **changes: Any) -> Recipe:
    """A recipe whose table holds the records."""
    write_jsonl(folder, "a.jsonl", records)
    metadata = {"metadata": FIELDS}
    recipe = recipe_for(folder, source=metadata, **changes)
    run(recipe)
    return recipe


def with_vectors(recipe: Recipe, vectors: np.ndarray[Any, Any]) -> None:
    """Add rows with these vectors, whatever they are."""
    n_rows = len(vectors)
    columns: dict[str, Any] = {
        "chunk_id": [f"added-{n}" for n in range(n_rows)],
        "file_key": ["added"] * n_rows,
        "source_uri": ["added"] * n_rows,
        "doc_id": [f"added-{n}" for n in range(n_rows)],
        "chunk_index": [0] * n_rows,
        "text": [f"added text {n}" for n in range(n_rows)],
        "text_hash": [f"{n:064x}" for n in range(n_rows)],
        "n_tokens": [3] * n_rows,
        "char_start": [0] * n_rows,
        "char_end": [10] * n_rows,
    }
    arrow_schema = arrow_schema_of(recipe)
    kind = arrow_schema.field("vector").type
    values = pa.array(vectors.reshape(-1), kind.value_type)
    columns["vector"] = pa.FixedSizeListArray.from_arrays(values, kind.list_size)
    arrays = [
        columns["vector"]
        if field.name == "vector"
        else pa.array(columns.get(field.name, [None] * n_rows), field.type)
        for field in arrow_schema
    ]
    batch = pa.RecordBatch.from_arrays(arrays, schema=arrow_schema)
    table = table_of(recipe)
    replace_rows(table, "file_key", (), write_fragments(table, iter([batch]), arrow_schema))
