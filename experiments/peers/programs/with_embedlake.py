"""embedlake: a run with its scheduler, its lock and its commits, without Prefect and Ray.

Two settings of the fault experiments make a small run show more: a file per unit and two units per
commit, and a run that gives no sign of life is taken for dead after 0.1 s.
"""

import os
import sys
from pathlib import Path

from embedding_core.recipe import Recipe
from experiments.faults.kills.marks import Marks
from experiments.faults.stage import LOCK_TIMING, run
from experiments.peers.programs.hashed_words import DIM, SECONDS_PER_TEXT

WORDS_PER_CHUNK = 16


def main(corpus: Path, lake: Path) -> int:
    """The exit code of the run."""
    recipe = Recipe.load(
        {
            "name": "peers",
            "source": {"uri": str(corpus), "id": "id"},
            "chunk": {"max_tokens": WORDS_PER_CHUNK},
            "model": {"name": "hashing", "dim": DIM},
            "lake": {"uri": str(lake), "table": "docs"},
            "max_removed_share": 1.0,
        }
    )
    seconds = float(os.environ.get(SECONDS_PER_TEXT, "0"))
    report = Marks().watched(lambda: run(recipe, LOCK_TIMING), seconds)()
    return int(report.outcome != "done")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
