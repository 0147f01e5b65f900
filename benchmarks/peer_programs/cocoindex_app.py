"""CocoIndex: files mounted one by one, documents embedded with memory, rows declared."""

import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

CORPUS, LAKE, MODEL = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
LAKE.mkdir(parents=True, exist_ok=True)
os.environ["COCOINDEX_DB"] = str(LAKE / "cocoindex.db")

import cocoindex as coco  # noqa: E402
from cocoindex.connectors import lancedb, localfs  # noqa: E402
from cocoindex.ops.sentence_transformers import SentenceTransformerEmbedder  # noqa: E402
from cocoindex.resources.file import FileLike, PatternFilePathMatcher  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

DATABASE = coco.ContextKey[lancedb.LanceAsyncConnection]("database")
EMBEDDER = coco.ContextKey[SentenceTransformerEmbedder]("embedder", detect_change=True)


@dataclass
class Row:
    """A document with its vector."""

    key: str
    doc_id: str
    source: str
    text: str
    vector: Annotated[NDArray, EMBEDDER]


@coco.lifespan
async def environment(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    """The database and the model."""
    builder.provide(DATABASE, await lancedb.connect_async(str(LAKE)))
    builder.provide(EMBEDDER, SentenceTransformerEmbedder(MODEL, device="cpu"))
    yield


@coco.fn(memo=True)
async def embedded(text: str) -> NDArray:
    """A text's vector, remembered."""
    return await coco.use_context(EMBEDDER).embed(text)


@coco.fn
async def document(record: dict, source: str, table: lancedb.TableTarget[Row]) -> None:
    """One row."""
    vector = await embedded(record["text"])
    key = f"{source}/{record['id']}"
    table.declare_row(row=Row(key, record["id"], source, record["text"], vector))


@coco.fn(memo=True)
async def file_rows(file: FileLike, table: lancedb.TableTarget[Row]) -> None:
    """All rows of a file; a file that did not change is not read again."""
    text = await file.read_text()
    records = [json.loads(line) for line in text.splitlines()]
    await coco.map(document, records, file.file_path.path.name, table)


@coco.fn
async def main() -> None:
    """The table of all files."""
    schema = await lancedb.TableSchema.from_class(Row, primary_key=["key"])
    table = await lancedb.mount_table_target(DATABASE, table_name="docs", table_schema=schema)
    matcher = PatternFilePathMatcher(included_patterns=["**/*.jsonl"])
    files = localfs.walk_dir(CORPUS, recursive=True, path_matcher=matcher)
    await coco.mount_each(file_rows, files.items(), table)


app = coco.App(coco.AppConfig(name="Peers"), main)

if __name__ == "__main__":
    app.update_blocking()
