"""How fast a model is recognised: seconds from a fresh interpreter to its space.

    python -m benchmarks.resolve

A random Qwen3 checkpoint of 500 MB, each time in a process of its own: with nothing kept on this
machine (every byte is read and digested), then unchanged, then after its weights were touched. Its
files are in the page cache throughout. Writes ``benchmarks/results/resolve.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import RESULTS, about
from embedding_core.encoder.checkpoint.cache import SETTLED_NS
from tests.checkpoints import build_qwen3

RECOGNISE = """
import sys
from embedding_core.encoder import describe_model, model_spec
from embedding_core.identity import space_id
print(space_id(describe_model(model_spec(sys.argv[1])).space))
"""
LAYERS = 16
"""Of the dimensions of Qwen3-0.6B, in bf16: 500 MB with a small vocabulary."""


def main() -> None:
    """Measure, write the result, print it."""
    repeats = _arguments().repeats
    origin = about("resolve", ("huggingface-hub", "safetensors", "tokenizers"))
    with tempfile.TemporaryDirectory() as folder:
        home, checkpoint = Path(folder, "home"), Path(folder, "checkpoint")
        build_qwen3(
            checkpoint, half=True, num_hidden_layers=LAYERS, hidden_size=1024, head_dim=128,
            num_attention_heads=16, num_key_value_heads=8, intermediate_size=3072,
        )  # fmt: skip
        weights = checkpoint / "model.safetensors"
        time.sleep(SETTLED_NS / 1e9)  # digests of files just written are not kept
        first = _seconds(checkpoint, home)
        unchanged = [_seconds(checkpoint, home) for _ in range(repeats)]
        weights.touch()
        touched = _seconds(checkpoint, home)
        result = origin | {
            "weights_bytes": weights.stat().st_size,
            "seconds_first": round(first, 3),
            "seconds_unchanged_median": round(statistics.median(unchanged), 3),
            "seconds_unchanged_worst": round(max(unchanged), 3),
            "seconds_touched": round(touched, 3),
            "repeats": repeats,
        }
    (RESULTS / "resolve.json").write_text(json.dumps(result, indent=1) + "\n")
    print({name: value for name, value in result.items() if name.startswith("seconds")})


def _seconds(checkpoint: Path, home: Path) -> float:
    """Start of the interpreter and imports included."""
    environment = {**os.environ, "HF_HOME": str(home)}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", RECOGNISE, str(checkpoint)],
        env=environment, stdout=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return time.perf_counter() - started


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    return parser.parse_args()


if __name__ == "__main__":
    main()
