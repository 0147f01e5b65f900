"""The dataset card: a page for people, with the head that a hub reads."""

from __future__ import annotations

import json

from embedding_core.exports.manifest import MANIFEST, Manifest
from embedding_core.plurals import counted

CARD = "README.md"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"),
         (10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))  # fmt: skip
"""Categories of a hub, by the numbers of rows below them."""
LARGEST = "n>1B"
SHOWN_FORMATS = ("parquet", "jsonl", "arrow")
"""Formats that a hub shows with their vectors; of others it shows the metadata."""

READING = {
    "parquet": 'import pyarrow.dataset as ds\n\nrows = ds.dataset("data", format="parquet")',
    "jsonl": 'import pandas as pd\n\nrows = pd.read_json("{stem}.jsonl", lines=True)',
    "arrow": 'import pyarrow.dataset as ds\n\nrows = ds.dataset("data", format="ipc")',
    "npy": "import numpy as np\nimport pyarrow.parquet as pq\n\n"
    'vectors = np.load("{stem}.npy", mmap_mode="r")\n'
    'rows = pq.read_table("{stem}.parquet")  # in the same order',
    "safetensors": "import pyarrow.parquet as pq\nfrom safetensors.numpy import load_file\n\n"
    'vectors = load_file("{stem}.safetensors")["{vector}"]\n'
    'rows = pq.read_table("{stem}.parquet")  # in the same order',
}
"""How a shard is read in Python, by format; a plugin's format has none."""


def dataset_card(manifest: Manifest, stem: str) -> str:
    """The card of an export. ``stem``: the path of its first shard, without an end."""
    head = {
        "tags": ["embeddings", "embedlake"],
        "size_categories": [_size(manifest.rows)],
        "configs": [{"config_name": "default", "data_files": f"data/**/*.{_shown(manifest)}"}],
    }
    lines = ["---", *(f"{name}: {json.dumps(value)}" for name, value in head.items()), "---", ""]
    lines += [f"# {manifest.recipe}", "", *_about(manifest), "", *_columns(manifest)]
    reading = READING.get(manifest.spec["to"])
    if reading is not None:
        code = reading.format(stem=stem, vector=_vector(manifest))
        lines += ["", "## Read it", "", "```python", *code.splitlines(), "```"]
    return "\n".join(lines) + "\n"


def _about(manifest: Manifest) -> list[str]:
    table = f"version {manifest.table_version} of the table `{manifest.table}`"
    lines = [
        f"{counted(manifest.rows, 'row')} of {table}, exported by embedlake as "
        f"{manifest.spec['to']}."
    ]
    if (space := manifest.space) is not None:
        lines += [
            f"Vectors: {counted(space['dim'], 'dimension')}, unit length, model "
            f"`{space['model']}`, {space['pooling']} pooling; the whole space is in `space.json`.",
        ]
    if manifest.folders:
        lines += [
            f"A folder for each of {counted(len(manifest.folders), 'value')} of "
            f"`{manifest.spec['split_by']}`; `{MANIFEST}` has the value of each."
        ]
    return [
        *lines,
        f"What was left out is in `rejects.parquet`; `{MANIFEST}` has the SHA-256 of every file.",
    ]


def _columns(manifest: Manifest) -> list[str]:
    rows = [f"| `{column['name']}` | {column['type']} |" for column in manifest.columns]
    return ["| column | type |", "|---|---|", *rows]


def _vector(manifest: Manifest) -> str:
    return next((c["name"] for c in manifest.columns if c["type"].endswith("]")), "")


def _size(n_rows: int) -> str:
    return next((name for limit, name in SIZES if n_rows < limit), LARGEST)


def _shown(manifest: Manifest) -> str:
    name = manifest.spec["to"]
    return name if name in SHOWN_FORMATS else "parquet"
