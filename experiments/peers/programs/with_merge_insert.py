"""A careful script: each changed file takes the place of its old rows in one ``merge_insert``.

It keeps no state but the table: every row has the digest of its file.
"""

import hashlib
import json
import sys
from pathlib import Path

import lancedb
import pyarrow as pa
from hashed_words import DIM, vectors

WORDS_PER_CHUNK = 16
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("chunk_id", "source", "digest", "text")),
        pa.field("vector", pa.list_(pa.float32(), DIM)),
    ]
)


def main(corpus: Path, lake: Path) -> None:
    """Write the files whose digest is another one; delete the rows of those that are gone."""
    database = lancedb.connect(lake)
    table = database.create_table("docs", schema=SCHEMA, exist_ok=True)
    rows = table.search().select(["source", "digest"]).to_arrow()
    stored = dict(zip(rows["source"].to_pylist(), rows["digest"].to_pylist(), strict=True))
    files = sorted(corpus.iterdir())
    for path in files:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if stored.get(path.name) != digest:
            (
                table.merge_insert("chunk_id")
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .when_not_matched_by_source_delete(f"source = '{path.name}'")
                .execute(_rows(path.name, digest, content))
            )
    for name in stored.keys() - {path.name for path in files}:
        table.delete(f"source = '{name}'")


def _rows(name: str, digest: str, content: bytes) -> pa.Table:
    rows = []
    for record in map(json.loads, content.splitlines()):
        words = record["text"].split()
        for start in range(0, len(words), WORDS_PER_CHUNK):
            chunk_id = f"{name}/{record['id']}/{start}"
            text = " ".join(words[start : start + WORDS_PER_CHUNK])
            rows.append({"chunk_id": chunk_id, "source": name, "digest": digest, "text": text})
    for row, vector in zip(rows, vectors([row["text"] for row in rows]), strict=True):
        row["vector"] = vector
    return pa.Table.from_pylist(rows, schema=SCHEMA)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
