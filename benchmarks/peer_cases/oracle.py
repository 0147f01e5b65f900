"""Compares a table with the files: each document once, its text, its vector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

from benchmarks.peer_cases.corpus import Corpus

TOLERANCE = 0.998
"""Cosine to the reference from which a vector is right: half precision is, another model is not."""


Row = tuple[str, str, str, np.ndarray]
"""File name, document id, text, vector."""


def compared(lake: Path, expected: Corpus, model: Path) -> str | None:
    """What is wrong with the table; None when it says what the files say, by this model."""
    try:
        table = lancedb.connect(lake).open_table("docs").to_arrow()
    except Exception as error:
        return f"no table: {type(error).__name__}"
    rows = _rows(table)
    texts = {(name, key): text for name, by_id in expected.items() for key, text in by_id.items()}
    times = Counter((name, key) for name, key, _, _ in rows)
    faults = {
        "documents missing": len(texts.keys() - times.keys()),
        "documents too many": len(times.keys() - texts.keys()),
        "documents more than once": sum(n > 1 for n in times.values()),
        "documents with another text": sum(
            texts.get((name, key), text) != text for name, key, text, _ in rows
        ),
        "vectors that are not the text's": _n_wrong_vectors(rows, model),
    }
    return ", ".join(f"{count} {fault}" for fault, count in faults.items() if count) or None


def _rows(table: pa.Table) -> list[Row]:
    """The rows, however the tool lays them out."""
    rows = []
    for row in table.to_pylist():
        metadata = row.get("metadata") or {}
        source = row.get("source") or row.get("source_uri") or metadata.get("source")
        key = metadata.get("document") or row["doc_id"]
        vector = np.asarray(row["vector"], dtype=np.float32)
        rows.append((str(source).rpartition("/")[2], str(key), row["text"], vector))
    return rows


def _n_wrong_vectors(rows: Sequence[Row], model: Path) -> int:
    references = _references(model, sorted({text for _, _, text, _ in rows}))
    units = ((vector / (np.linalg.norm(vector) or 1.0), text) for _, _, text, vector in rows)
    return sum(float(unit @ references[text]) < TOLERANCE for unit, text in units)


def _references(model: Path, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """(dim,) float32 by text, of the model as it is now."""
    stamp = (model / "model.safetensors").stat().st_mtime_ns
    encoder, references = _reference_model(str(model), stamp)
    new = [text for text in texts if text not in references]
    if new:
        vectors = encoder.encode(new, normalize_embeddings=True, show_progress_bar=False)
        references.update(zip(new, vectors, strict=True))
    return references


@cache
def _reference_model(model: str, _stamp: int) -> tuple[Any, dict[str, np.ndarray]]:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model, device="cpu"), {}
