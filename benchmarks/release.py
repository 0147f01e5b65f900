"""A model change, measured: what it writes, how long a switch takes, what it survives.

    python -m benchmarks.release
    python -m benchmarks.release --only switch
    BEIR=path/to/cranfield python -m benchmarks.release --only finetune --only ruined

``finetune`` and ``ruined`` need a folder in BEIR's format (corpus.jsonl, queries.jsonl, qrels.tsv)
in the variable ``BEIR``. Each case writes ``benchmarks/results/release-<case>.json``; see
``benchmarks/README.md`` for what they say.
"""

from __future__ import annotations

from benchmarks.cases import Case, run_cases
from benchmarks.release_cases import beside, kills, models, rebuild, switch

CASES: dict[str, Case] = {
    "switch": switch.million_rows,
    "bytes": rebuild.bytes_written,
    "beside": beside.ingest_during_a_build,
    "kills": kills.twenty,
    "finetune": models.fine_tune,
    "ruined": models.ruined,
}
"""By name; each gets an empty folder and gives its figures."""


if __name__ == "__main__":
    run_cases("release", CASES, ("lancedb", "pylance", "prefect", "ray", "torch"), __doc__)
