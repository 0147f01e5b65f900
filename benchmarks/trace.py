"""How far one text travels: from a file of one record to its vector in the table, counted.

    python -m benchmarks.trace

Runs a new one-record recipe with the hashing encoder in this process, without Prefect and Ray,
under ``sys.setprofile``. Counted are calls of the project's functions, switches from one of its
files to another, and how often the Lance dataset is opened; of a longer file also the switches that
each further text costs. Writes ``benchmarks/results/trace.json``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import lance

from benchmarks.machine import RESULTS, ROOT, about
from tests.driver import recipe_for, run, write_jsonl

MORE_TEXTS = 100
PACKAGES = tuple(str(ROOT / name) for name in ("embedding_core", "embedlake", "flows"))


class Trace:
    """What happened while it was on."""

    def __init__(self) -> None:
        self.calls = 0
        self.switches = 0
        self.opens = 0
        self.files: Counter[str] = Counter()
        self._file = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Called by Python for every call and return."""
        if event != "call":
            return
        code = frame.f_code
        if code.co_name in ("__init__", "checkout_version") and "lance/dataset" in code.co_filename:
            self.opens += isinstance(frame.f_locals.get("self"), lance.LanceDataset)
        if code.co_filename.startswith(PACKAGES):
            self.calls += 1
            self.files[code.co_filename] += 1
            self.switches += code.co_filename != self._file
            self._file = code.co_filename


def traced(n_texts: int) -> Trace:
    """A first run of a recipe over one file with so many texts."""
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder:
        write_jsonl(Path(folder), "a.jsonl", {f"x{n}": "a few words" for n in range(n_texts)})
        recipe = recipe_for(Path(folder))
        sys.setprofile(trace)
        try:
            run(recipe)
        finally:
            sys.setprofile(None)
    return trace


def main() -> None:
    """Count and write."""
    trace = traced(1)
    further = (traced(1 + MORE_TEXTS).switches - traced(1).switches) / MORE_TEXTS
    counted = {
        "calls": trace.calls,
        "file switches": trace.switches,
        "files": len(trace.files),
        "dataset opens": trace.opens,
        "file switches per further text": round(further, 1),
    }
    print(json.dumps(counted, indent=1))
    result = about("trace", ("lancedb", "pylance")) | counted
    (RESULTS / "trace.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
