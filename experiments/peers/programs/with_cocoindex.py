"""CocoIndex: files mounted one by one, pieces embedded with memory, rows declared.

Its state is the LMDB file that ``COCOINDEX_DB`` names, which is its default kind of state.
"""

import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

CORPUS, LAKE = Path(sys.argv[1]), Path(sys.argv[2])
os.environ["COCOINDEX_DB"] = str(LAKE / "cocoindex.db")

import cocoindex as coco  # noqa: E402
import numpy as np  # noqa: E402
from cocoindex.connectors import lancedb, localfs  # noqa: E402
from cocoindex.ops.text import RecursiveSplitter  # noqa: E402
from cocoindex.resources.file import FileLike, PatternFilePathMatcher  # noqa: E402
from cocoindex.resources.schema import VectorSchema  # noqa: E402
from hashed_words import DIM, vectors  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

CHUNK_BYTES = 256
DATABASE = coco.ContextKey[lancedb.LanceAsyncConnection]("database")
SPLITTER = RecursiveSplitter()


@dataclass
class Row:
    """A piece of a document with its vector."""

    key: str
    source: str
    text: str
    vector: Annotated[NDArray, VectorSchema(dtype=np.dtype(np.float32), size=DIM)]


@coco.lifespan
async def environment(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    """The database."""
    builder.provide(DATABASE, await lancedb.connect_async(str(LAKE)))
    yield


@coco.fn(memo=True)
async def embedded(text: str) -> NDArray:
    """A text's vector, remembered."""
    return np.array(vectors([text])[0], np.float32)


@coco.fn
async def document(record: dict, source: str, table: lancedb.TableTarget[Row]) -> None:
    """The rows of a document."""
    for number, chunk in enumerate(SPLITTER.split(record["text"], CHUNK_BYTES)):
        key = f"{source}/{record['id']}/{number}"
        table.declare_row(row=Row(key, source, chunk.text, await embedded(chunk.text)))


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
