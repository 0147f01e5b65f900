"""How long a plan over a dataset of a hub takes, and what it asks the hub for.

    python -m benchmarks.hub_plan --shards 1000

The hub is a stand-in on this machine, so the network's time is missing: each request costs that of
a round trip more. The command is run whole, start and imports included, with the hashing encoder,
over shards of Parquet that no table has yet. Writes ``benchmarks/results/hub-plan.json``.
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
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.machine import RESULTS, about
from tests.sources.stub_hub import DATASET, StubHub, stub_hub

TURNS = 5


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=1_000)
    n_shards = parser.parse_args().shards
    with stub_hub() as hub, tempfile.TemporaryDirectory() as folder:
        commit = hub.commit(
            {
                f"data/train-{number:05}-of-{n_shards:05}.parquet": _shard(number)
                for number in range(n_shards)
            }
        )
        turns = [_planned(hub, Path(folder), commit, n_shards) for _ in range(TURNS)]
        seconds = [turn["seconds"] for turn in turns]
        result = about("hub_plan", ("huggingface_hub", "httpx2")) | {
            "shards": n_shards,
            "median_seconds": round(statistics.median(seconds), 2),
            "longest_seconds": round(max(seconds), 2),
            "requests": turns[0]["requests"],
            "requests_for_content": len(hub.reads),
            "bytes_of_shards_served": hub.n_bytes_read,
        }
    print(json.dumps(result, indent=2))
    (RESULTS / "hub-plan.json").write_text(json.dumps(result, indent=2) + "\n")


def _shard(number: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [f"text {number} {row}" for row in range(100)]}), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _planned(hub: StubHub, folder: Path, commit: str, n_shards: int) -> dict[str, Any]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: hub\nsource: {{uri: 'hf://datasets/{DATASET}', split: train}}\n"
        "model: {name: hashing, dim: 32}\nlake: {uri: ./lake, table: docs}\n"
    )
    before, started = len(hub.requests), time.perf_counter()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("embedlake")), "plan", str(recipe), "--json"],
        env=os.environ | {"HF_ENDPOINT": hub.url},
        capture_output=True,
        check=True,
    )
    seconds = time.perf_counter() - started
    files = json.loads(done.stdout)["files"]
    if len(files) != n_shards or any(file["file"]["version"] != commit for file in files):
        raise RuntimeError("the plan is not of every shard at the commit")
    return {"seconds": seconds, "requests": len(hub.requests) - before}


if __name__ == "__main__":
    main()
