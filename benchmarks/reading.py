"""What reading records takes: megabytes of file per CPU-second, beside the parser alone.

    python -m benchmarks.reading

Files of JSON lines of several kinds, and one of Parquet. `documents` is all that a chunk task does
before it cuts: read, parse, check, render the text, convert metadata. `records` is the format
alone. Peers in the same process, turns interleaved: orjson and Python's json on each line, which
take a key twice, and pyarrow's batches. The least CPU-seconds of all turns count: what else runs
on the machine only ever adds. Files are in the page cache. Writes
``benchmarks/results/reading.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import RESULTS, about
from embedding_core.recipe import SourceSpec
from embedding_core.records import SourceFile
from embedding_core.sources import discover, read_documents
from embedding_core.sources.formats.format import Fields, format_of

REFERENCE = "\n\n".join(topics[name] for name in sorted(topics))
N_CHARACTERS = 2_000_000
FIELDS = Fields(("title", "text"), ("year", "score"))
MAPPING: dict[str, Any] = {
    "text": "{title}\n{text}",
    "metadata": {"year": "int", "score": "float"},
}


def main() -> None:
    """Measure, write the result, print it."""
    args = _arguments()
    origin = about("reading", ("orjson", "pyarrow"))
    with tempfile.TemporaryDirectory() as folder:
        files = _files(Path(folder), args.characters)
        rows = [_measured(name, path, args.turns) for name, path in files]
    result = origin | {"files": rows}
    (RESULTS / "reading.json").write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))


def _files(folder: Path, n_characters: int) -> Iterator[tuple[str, Path]]:
    """Records of pages, of single lines, of scripts beyond ASCII, with objects and lists."""
    for name, (size, line) in KINDS.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(line(record) + "\n" for record in _records(n_characters, size)))
        yield name, path
    path = folder / "pages.parquet"
    pq.write_table(pa.Table.from_pylist(list(_records(n_characters, 6_000))), path)
    yield "pages, Parquet", path


def _beyond_ascii(record: dict[str, Any]) -> str:
    text = record["text"].replace("the ", "文 é ")
    return json.dumps(record | {"text": text}, ensure_ascii=False)


def _nested(record: dict[str, Any]) -> str:
    author = {"name": "a", "of": [{"x": number} for number in range(5)]}
    return json.dumps(record | {"author": author, "weights": [n / 7 for n in range(64)]})


KINDS: dict[str, tuple[int, Callable[[dict[str, Any]], str]]] = {
    "pages": (6_000, json.dumps),
    "single lines": (120, json.dumps),
    "beyond ASCII": (600, _beyond_ascii),
    "objects and lists": (600, _nested),
}
"""Characters of a record's text, and how the record is written."""


def _records(n_characters: int, size: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(0)
    for number in range(n_characters // size):
        start = chance.randrange(len(REFERENCE) - size)
        text = REFERENCE[start : start + size]
        yield {
            "id": f"doc-{number}", "title": "A title", "text": text or "x",
            "year": 1900 + number % 120, "score": number / 7,
        }  # fmt: skip


def _measured(name: str, path: Path, turns: int) -> dict[str, Any]:
    spec = SourceSpec(uri=str(path), id="id", **MAPPING)
    (file,) = discover(spec).files
    variants: dict[str, Callable[[], object]] = {
        "documents": lambda: sum(1 for _ in read_documents(file, spec)),
        "records": lambda: _read_records(file, path),
    }
    if path.suffix == ".parquet":
        variants["pyarrow"] = lambda: _read_batches(path)
    else:
        variants["orjson"] = lambda: _parse_lines(path, orjson.loads)
        variants["json"] = lambda: _parse_lines(path, json.loads)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(turns + 1):
        for variant, action in variants.items():
            started = time.process_time()
            action()
            if turn:  # the first warms up
                seconds[variant].append(time.process_time() - started)
    n_megabytes = path.stat().st_size / 1e6
    rates = {name: n_megabytes / min(taken) for name, taken in seconds.items()}
    peer = "pyarrow" if path.suffix == ".parquet" else "orjson"
    return {
        "file": name,
        "megabytes": round(n_megabytes, 1),
        "megabytes_per_cpu_second": {name: round(rate) for name, rate in rates.items()},
        f"share_of_{peer}": {name: round(rate / rates[peer], 2) for name, rate in rates.items()},
    }


def _parse_lines(path: Path, parse: Callable[[bytes], object]) -> None:
    with path.open("rb") as lines:
        for line in lines:
            parse(line)


def _read_batches(path: Path) -> None:
    for _ in pq.ParquetFile(path).iter_batches():
        pass


def _read_records(file: SourceFile, path: Path) -> None:
    with path.open("rb", buffering=0) as stream:
        for _ in format_of(file.uri).records(stream, file, FIELDS):
            pass


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--characters", type=int, default=N_CHARACTERS)
    parser.add_argument("--turns", type=int, default=15)
    return parser.parse_args()


if __name__ == "__main__":
    main()
