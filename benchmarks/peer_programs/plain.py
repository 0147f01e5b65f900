"""A plain script: sentence-transformers and LanceDB, and a file of content hashes to skip by."""

import hashlib
import json
import sys
from pathlib import Path

import lancedb
import pyarrow as pa


def main(corpus: Path, lake: Path, model_folder: str) -> None:
    """Embed files whose hash is another one, delete the rows of those that are gone."""
    manifest = lake / "files.json"
    known = json.loads(manifest.read_text()) if manifest.exists() else {}
    hashes = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(corpus.iterdir())}
    changed = [name for name, digest in hashes.items() if known.get(name) != digest]
    gone = [name for name in known if name not in hashes]
    if not changed and not gone:
        return
    database = lancedb.connect(lake)
    table = database.open_table("docs") if known else None
    if table is not None:
        for name in [*changed, *gone]:
            table.delete(f"source = '{name}'")
    if changed:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(model_folder, device="cpu")
        rows = [row for name in changed for row in records(corpus / name)]
        vectors = model.encode([row["text"] for row in rows], normalize_embeddings=True)
        data = pa.Table.from_pylist(rows).append_column(
            "vector",
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1]),
        )
        if table is None:
            database.create_table("docs", data)
        else:
            table.add(data)
    manifest.write_text(json.dumps(hashes))


def records(path: Path) -> list[dict[str, str]]:
    """The file's documents."""
    rows = []
    for line in path.read_text().splitlines():
        record = json.loads(line)
        rows.append({"doc_id": record["id"], "source": path.name, "text": record["text"]})
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
