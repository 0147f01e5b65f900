"""Input formats: how fast files become documents, and what a file of any size holds in memory.

    python -m benchmarks.inputs --part speed --mib 64
    python -m benchmarks.inputs --part memory --mib 256 2048

Speed: bytes of the file per CPU-second, read and rendered with ``{title}\\n{text}``, by embedlake
and by the library alone, which gives the same texts without checks, ids or metadata. Both take
turns in one process. Memory: the largest resident size of a process that reads the file, beyond
that of one that reads a file of three records, whole and in slices of 64 MiB. Writes
``benchmarks/results/inputs-<part>.json``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import docx
import fpdf
import mammoth
import markdownify
import orjson
import pptx
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pypdfium2
import trafilatura

from benchmarks.machine import RESULTS, about
from embedding_core.recipe import SourceSpec
from embedding_core.records import Document, Slice, SourceFile
from embedding_core.sources import discover, read_documents, slices
from embedding_core.store.local import SETTLED_SECONDS

PACKAGES = (
    "pyarrow",
    "orjson",
    "trafilatura",
    "pypdfium2",
    "mammoth",
    "markdownify",
    "python-pptx",
)
TURNS = 5
SLICE_BYTES = 64 * 1024 * 1024
BATCH_RECORDS = 4_096
NAMES = ("id", "title", "text", "year")
WORDS = [f"word{number}" for number in range(2_000)]

Records = Iterator[dict[str, Any]]


def records(n_bytes: int) -> Records:
    """Records of about a kilobyte, as many as take that many bytes."""
    chance = random.Random(0)
    for number in range(max(3, n_bytes // 1_000)):
        text = " ".join(chance.choices(WORDS, k=chance.randrange(60, 200)))
        yield {"id": f"d{number}", "title": f"Title {number}", "text": text, "year": 1900}


def batches(n_bytes: int) -> Iterator[pa.RecordBatch]:
    """The same as Arrow batches."""
    batch: list[dict[str, Any]] = []
    for record in records(n_bytes):
        batch.append(record)
        if len(batch) == BATCH_RECORDS:
            yield pa.RecordBatch.from_pylist(batch)
            batch = []
    if batch:
        yield pa.RecordBatch.from_pylist(batch)


def write_jsonl(path: Path, n_bytes: int) -> None:
    with path.open("wb") as file:
        file.writelines(orjson.dumps(record) + b"\n" for record in records(n_bytes))


def write_gzip(path: Path, n_bytes: int) -> None:
    with gzip.open(path, "wb", 1) as file:
        file.writelines(orjson.dumps(record) + b"\n" for record in records(n_bytes))


def write_json(path: Path, n_bytes: int) -> None:
    path.write_bytes(orjson.dumps(list(records(n_bytes))))


def write_csv(path: Path, n_bytes: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, NAMES)
        writer.writeheader()
        writer.writerows(records(n_bytes))


def write_parquet(path: Path, n_bytes: int) -> None:
    schema = next(batches(0)).schema
    with pq.ParquetWriter(path, schema) as writer:
        for batch in batches(n_bytes):
            writer.write_batch(batch, row_group_size=100_000)


def write_one_row_group(path: Path, n_bytes: int) -> None:
    """As pandas does up to a million rows."""
    table = pa.Table.from_batches(batches(n_bytes))
    pq.write_table(table, path, row_group_size=1024 * 1024)


def write_arrow(path: Path, n_bytes: int) -> None:
    schema = next(batches(0)).schema
    with pa.ipc.new_file(path, schema) as writer:
        for batch in batches(n_bytes):
            writer.write_batch(batch)


def write_arrow_stream(path: Path, n_bytes: int) -> None:
    schema = next(batches(0)).schema
    with pa.ipc.new_stream(path, schema) as writer:
        for batch in batches(n_bytes):
            writer.write_batch(batch)


def paragraphs(n_bytes: int) -> Iterator[str]:
    return (record["text"] + "." for record in records(n_bytes))


def write_text(path: Path, n_bytes: int) -> None:
    path.write_text("\n\n".join(paragraphs(n_bytes)))


def write_html(path: Path, n_bytes: int) -> None:
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs(n_bytes))
    path.write_text(f"<html><body><nav>Home</nav><article>{body}</article></body></html>")


def write_pdf(path: Path, n_bytes: int) -> None:
    document = fpdf.FPDF()
    document.set_font("helvetica", size=10)
    for paragraph in paragraphs(n_bytes):
        document.add_page()
        document.multi_cell(0, text=paragraph)
    document.output(str(path))


def write_docx(path: Path, n_bytes: int) -> None:
    document = docx.Document()
    for paragraph in paragraphs(n_bytes):
        document.add_paragraph(paragraph)
    document.save(str(path))


def write_pptx(path: Path, n_bytes: int) -> None:
    presentation = pptx.Presentation()
    for paragraph in paragraphs(n_bytes):
        slide = presentation.slides.add_slide(presentation.slide_layouts[6])
        slide.shapes.add_textbox(0, 0, 1, 1).text_frame.text = paragraph
    presentation.save(str(path))


# The libraries alone


def rendered(values: Records) -> int:
    return sum(len(f"{record['title']}\n{record['text']}") for record in values)


def rows_of(columns: dict[str, list[Any]]) -> Records:
    return ({"title": title, "text": text} for title, text in zip(*columns.values(), strict=True))


def columns_rendered(parts: Iterator[pa.RecordBatch]) -> int:
    chosen = (part.select(["title", "text"]) for part in parts)
    return sum(rendered(rows_of(part.to_pydict())) for part in chosen)


def orjson_lines(path: Path) -> int:
    with path.open("rb") as file:
        return rendered(map(orjson.loads, file))


def orjson_gzip(path: Path) -> int:
    with gzip.open(path) as file:
        return rendered(map(orjson.loads, file))


def orjson_whole(path: Path) -> int:
    return rendered(iter(orjson.loads(path.read_bytes())))


def csv_alone(path: Path) -> int:
    with path.open(newline="") as file:
        return rendered(csv.DictReader(file))


def parquet_alone(path: Path) -> int:
    with pq.ParquetFile(path) as file:
        return columns_rendered(file.iter_batches(512, columns=["title", "text"]))


def arrow_alone(path: Path) -> int:
    reader = pa.ipc.open_file(path)
    return columns_rendered(reader.get_batch(n) for n in range(reader.num_record_batches))


def arrow_stream_alone(path: Path) -> int:
    return columns_rendered(iter(pa.ipc.open_stream(path)))


def text_alone(path: Path) -> int:
    return len(path.read_text())


def html_alone(path: Path) -> int:
    return len(trafilatura.extract(path.read_bytes(), output_format="markdown") or "")


def pdf_alone(path: Path) -> int:
    document = pypdfium2.PdfDocument(path)
    return sum(len(page.get_textpage().get_text_bounded()) for page in document)


def docx_alone(path: Path) -> int:
    page = mammoth.convert_to_html(io.BytesIO(path.read_bytes())).value
    return len(markdownify.markdownify(page, heading_style="ATX"))


def pptx_alone(path: Path) -> int:
    slides = pptx.Presentation(str(path)).slides
    return sum(len(shape.text) for slide in slides for shape in slide.shapes)


@dataclass(frozen=True)
class Case:
    """A format, and the library that is measured beside it."""

    file_name: str
    write: Callable[[Path, int], None]
    peer: str
    alone: Callable[[Path], int]
    share: float = 1
    """Share of the asked size that its file has: slow formats have smaller ones."""

    @property
    def template(self) -> str:
        """What is rendered: formats of one document per file have no titles."""
        has_titles = self.peer in ("pyarrow", "orjson", "csv.DictReader") or "orjson" in self.peer
        return "{title}\n{text}" if has_titles else "text"


SPEED = {
    "JSON lines": Case("a.jsonl", write_jsonl, "orjson", orjson_lines),
    "JSON lines, gzip": Case("a.jsonl.gz", write_gzip, "gzip and orjson", orjson_gzip),
    "JSON list": Case("a.json", write_json, "orjson, the whole file at once", orjson_whole),
    "CSV": Case("a.csv", write_csv, "csv.DictReader", csv_alone),
    "Parquet": Case("a.parquet", write_parquet, "pyarrow", parquet_alone),
    "Arrow file": Case("a.arrow", write_arrow, "pyarrow", arrow_alone),
    "Arrow stream": Case("a.arrows", write_arrow_stream, "pyarrow", arrow_stream_alone),
    "text": Case("a.txt", write_text, "Path.read_text", text_alone),
    "HTML": Case("a.html", write_html, "trafilatura", html_alone, 1 / 64),
    "PDF": Case("a.pdf", write_pdf, "pypdfium2", pdf_alone, 1 / 64),
    "DOCX": Case("a.docx", write_docx, "mammoth and markdownify", docx_alone, 1 / 64),
    "PPTX": Case("a.pptx", write_pptx, "python-pptx", pptx_alone, 1 / 256),
}
MEMORY: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "JSON lines": ("a.jsonl", write_jsonl),
    "Parquet": ("a.parquet", write_parquet),
    "Parquet of one row group": ("a.parquet", write_one_row_group),
    "Arrow file": ("a.arrow", write_arrow),
    "CSV": ("a.csv", write_csv),
}


def main() -> None:
    """Measure a part, write its result, print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=["speed", "memory"], required=True)
    parser.add_argument("--mib", type=int, nargs="+", default=[64], help="sizes of the files")
    arguments = parser.parse_args()
    measure = speed if arguments.part == "speed" else memory
    figures = {f"{mib} MiB": measure(mib) for mib in arguments.mib}
    result = about("inputs", PACKAGES) | {"figures": figures}
    target = RESULTS / f"inputs-{arguments.part}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")


def speed(mib: int) -> dict[str, Any]:
    """Megabytes per second of each format, and those of its library alone."""
    figures = {}
    for name, case in SPEED.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, case.file_name)
            case.write(path, int(mib * 2**20 * case.share))
            time.sleep(SETTLED_SECONDS)  # most files were not written in this moment
            spec = SourceSpec(uri=str(path), text=case.template)
            (file,) = discover(spec).files
            turns = [(timed(read, file, spec), timed(case.alone, path)) for _ in range(TURNS)]
            megabytes = path.stat().st_size / 1e6
        ours, peer = (
            megabytes / statistics.median(seconds) for seconds in zip(*turns, strict=True)
        )
        figures[name] = {
            "megabytes": round(megabytes, 1),
            "embedlake_mb_per_cpu_s": round(ours, 1),
            "alone": case.peer,
            "alone_mb_per_cpu_s": round(peer, 1),
            "share": round(ours / peer, 2),
        }
        print(name, figures[name], flush=True)
    return figures


def memory(mib: int) -> dict[str, Any]:
    """Resident mebibytes beyond a process that reads a file of three records, whole and sliced."""
    figures = {}
    for name, (file_name, write) in MEMORY.items():
        with tempfile.TemporaryDirectory() as folder:
            small, large = Path(folder, "small", file_name), Path(folder, "large", file_name)
            for path, n_bytes in ((small, 0), (large, mib * 2**20)):
                path.parent.mkdir()
                in_own_process(write, path, n_bytes)
            least = peak_mib(small, False)
            figures[name] = {
                "megabytes": round(large.stat().st_size / 1e6),
                "process_mib": least,
                "whole_mib": peak_mib(large, False) - least,
                "sliced_mib": peak_mib(large, True) - least,
            }
        print(name, figures[name], flush=True)
    return figures


def read(file: SourceFile, spec: SourceSpec, piece: Slice | None = None) -> int:
    """Characters of the documents of a file or slice."""
    documents = (item for item in read_documents(file, spec, piece) if isinstance(item, Document))
    return sum(len(document.text) for document in documents)


def timed(work: Callable[..., int], *arguments: object) -> float:
    """CPU-seconds that the work takes."""
    started = time.process_time()
    assert work(*arguments)
    return time.process_time() - started


def peak_mib(path: Path, is_sliced: bool) -> int:
    """Largest resident size of a process that reads the file, and nothing else."""
    peak: int = in_own_process(read_and_tell, path, is_sliced)
    return peak


def read_and_tell(path: Path, is_sliced: bool) -> int:
    spec = SourceSpec(uri=str(path), text="{title}\n{text}")
    (file,) = discover(spec).files
    pieces: list[Slice | None] = [*slices(file, spec, SLICE_BYTES)] if is_sliced else []
    for piece in pieces or [None]:
        assert read(file, spec, piece)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def in_own_process(work: Callable[..., Any], *arguments: object) -> Any:
    """What the work gives in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        return executor.submit(work, *arguments).result()


if __name__ == "__main__":
    main()
