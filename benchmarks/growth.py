"""A table ten times larger: what each step takes at a million rows and at ten million.

    python -m benchmarks.growth
    python -m benchmarks.growth --rows 100000 1000000

Made-up vectors of 384 dimensions in float16 and the hashing encoder, on local disk. Each size runs
in a process of its own. For each step: seconds, the most memory of its process (what the process
had before the step is in it), and the exponent by which seconds grow between the first size and the
last: 0 for what does not depend on the rows, 1 for what is linear. Searches, commits, promotes and
rollbacks are medians. Writes ``results/growth.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lake_cases.indexes import EXACT_QUERIES, Prepared
from benchmarks.lake_cases.plans import command_of, write_recipe
from benchmarks.lake_cases.tables import (
    clusters,
    peak_memory,
    percentiles,
    recipe_for,
    table_of_files,
    write_file,
)
from benchmarks.machine import RESULTS, about
from embedding_core.encoder.engines import describe_model
from embedding_core.identity import space_id, text_hash
from embedding_core.lake.index.scalar import refresh_scalar_indexes
from embedding_core.lake.index.vector import refresh_vector_index
from embedding_core.lake.query.search import Query
from embedding_core.lake.rows.commit import replace_rows, write_fragments
from embedding_core.lake.spaces.filling import PlacedVectors, fill_fragment, fragment_rows
from embedding_core.lake.spaces.switching import promote, rollback
from embedding_core.lake.spaces.vector_columns import add_column, missing_rows
from embedding_core.lake.table import Table
from embedding_core.recipe import IndexSpec, ModelSpec, Recipe, Resources
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.maintenance import maintain
from tests import driver
from tests.synthetic import Clusters, arrow_schema_of, rows

SIZES = (1_000_000, 10_000_000)
ROWS_PER_FILE = 1_000
QUERIES, COMMITS, SWITCHES = 200, 20, 20
HELD_OUT_SEED = 99
NEW = ModelSpec(name="hashing", dim=64)
"""The space that is promoted."""

Figures = dict[str, Any]


def main() -> None:
    """Measure each size, compare, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")  # Lance does not survive a fork
    sizes: list[Figures] = []
    for n_rows in arguments.rows:
        with spawn.Pool(1) as pool, tempfile.TemporaryDirectory(prefix="embedlake-bench-") as home:
            sizes.append(pool.apply(measured, (Path(home), n_rows)))
        print(json.dumps(sizes[-1], indent=1), flush=True)
    growth = _exponents(sizes[0], sizes[-1]) if len(sizes) > 1 else {}
    result = about("growth", ("lancedb", "pylance", "pyarrow")) | {
        "sizes": sizes,
        "growth_exponents": growth,
    }
    (RESULTS / "growth.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(growth, indent=1))


def measured(home: Path, n_rows: int) -> Figures:
    """Every step over a table of ``n_rows``."""
    for number in range(n_rows // ROWS_PER_FILE):
        write_file(home, _name(number), ROWS_PER_FILE)
    recipe = recipe_for(home)
    table = table_of_files(recipe, ROWS_PER_FILE)
    steps: Figures = {}
    steps["scalar_indexes"] = _step(lambda: refresh_scalar_indexes(table))
    steps["vector_index"] = _step(lambda: refresh_vector_index(table, IndexSpec()))
    driver.run(recipe, Resources())  # whatever else a first run does
    write_recipe(home, recipe)
    steps["plan"] = command_of(home, "plan")
    steps["run_with_nothing_to_do"] = command_of(home, "embed")
    steps["search"], recall = _searched(table, recipe)
    write_file(home, _name(0), ROWS_PER_FILE, word="changed")
    steps["one_file_changed"] = _step(lambda: _check_changed(recipe))
    steps["plan_in_process"] = _step(lambda: plan(recipe))
    steps["commit"] = _committed(table, recipe)
    steps |= _switched(table)
    steps["maintain"] = _step(lambda: maintain(recipe))
    return {
        "rows": n_rows,
        "files": n_rows // ROWS_PER_FILE,
        "recall_at_10": recall,
        "steps": steps,
    }


def _step(action: Callable[[], object]) -> Figures:
    with peak_memory() as peak:
        action()
    return {"seconds": round(peak["seconds"], 3), "peak_memory_mib": peak["peak_mib"]}


def _check_changed(recipe: Recipe) -> None:
    report = driver.run(recipe, Resources())
    if report.embedded != ROWS_PER_FILE:
        raise SystemExit(f"one file changed, and {report.embedded} rows were embedded")


def _searched(table: Table, recipe: Recipe) -> tuple[Figures, float]:
    """Milliseconds of a search by the index, and its recall among held-out queries."""
    space = describe_model(recipe.model).space
    encoder = Prepared(space, clusters().draw(QUERIES, HELD_OUT_SEED))

    def search(number: int, exact: bool = False) -> set[str]:
        vectors = encoder.encode_queries([str(number % QUERIES)])
        (hits,) = table.search_vectors(vectors, space, Query(exact=exact))
        return {hit.chunk_id for hit in hits}

    taken = percentiles(search, QUERIES - 3)
    pairs = [(search(n), search(n, exact=True)) for n in range(EXACT_QUERIES)]
    recall = float(np.mean([len(by_index & exact) / len(exact) for by_index, exact in pairs]))
    return taken | {"seconds": taken["p50_ms"] / 1_000}, round(recall, 4)


def _committed(table: Table, recipe: Recipe) -> Figures:
    """Milliseconds of the commit of a new file's rows, which are in storage already."""
    arrow_schema, made_up = arrow_schema_of(recipe), clusters()
    waiting = []
    for number in range(COMMITS + 3):
        uri = f"/new/{number}"
        batches = rows(recipe, [(uri, text_hash(uri))], 4, made_up, seed=number)
        waiting.append(write_fragments(table, batches, arrow_schema))
    taken = percentiles(lambda n: replace_rows(table, "file_key", (), waiting[n]), COMMITS)
    return taken | {"seconds": taken["p50_ms"] / 1_000}


def _switched(table: Table) -> Figures:
    """A second space in every row, then promotes and rollbacks."""
    space = describe_model(NEW).space
    column = add_column(table, space, NEW, "benchmark")
    others = Clusters.make(200, space.dim)
    new_id = space_id(space)

    def fill() -> None:
        for fragment_id in missing_rows(table.dataset(), new_id):
            blocks = [places for places, _ in fragment_rows(table, fragment_id, ["doc_id"])]
            places = np.concatenate(blocks)
            made_up = PlacedVectors(places, others.draw(len(places), fragment_id))
            fill_fragment(table, new_id, fragment_id, [made_up])

    figures: Figures = {"fill_a_space": _step(fill)}
    taken: dict[str, list[float]] = {"promote": [], "rollback": []}
    for _ in range(SWITCHES):
        taken["promote"].append(_step(lambda: promote(table, column, "benchmark"))["seconds"])
        taken["rollback"].append(_step(lambda: rollback(table, "benchmark"))["seconds"])
    return figures | {name: {"seconds": float(np.median(s))} for name, s in taken.items()}


def _exponents(small: Figures, large: Figures) -> dict[str, float]:
    by = math.log(large["rows"] / small["rows"])
    return {
        name: round(math.log(step["seconds"] / small["steps"][name]["seconds"]) / by, 2)
        for name, step in large["steps"].items()
    }


def _name(number: int) -> str:
    return f"{number % 100:02}/{number:05}.jsonl"


if __name__ == "__main__":
    main()
