"""What the lake costs at size: index, commits, plans, maintenance; with LanceDB's own calls beside.

    python -m benchmarks.lake
    python -m benchmarks.lake --only index --only commit

Every case runs in a process of its own, so its peak memory is its own, and on made-up vectors or
the hashing encoder, so that no model's time is in it. Each prints its figures and writes
``benchmarks/results/lake-<case>.json``. See ``benchmarks/README.md`` for what they say.
"""

from __future__ import annotations

from benchmarks.cases import Case, run_cases
from benchmarks.lake_cases import changes, commits, indexes, maintained, plans, runs

CASES: dict[str, Case] = {
    "pays": indexes.pays,
    "kinds": indexes.kinds,
    "index": indexes.million,
    "commit": commits.ten_thousand_fragments,
    "one-changed": changes.one_changed_file,
    "edited": changes.edited_paragraph,
    "compaction": maintained.compaction,
    "incremental": maintained.thousand_commits,
    "plan": plans.ten_thousand_files,
    "tiny-files": plans.hundred_thousand_files,
    "million-files": plans.million_files,
    "tiny-run": runs.tiny_against_large,
    "flow-memory": runs.flow_memory,
    "minilm": runs.minilm,
}
"""By name; each gets an empty folder and gives its figures."""


if __name__ == "__main__":
    run_cases("lake", CASES, ("lancedb", "pylance", "pyarrow", "numpy"), __doc__)
