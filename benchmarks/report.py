"""Looking at a table: seconds and memory of a report and a map, and frames of the page's map.

    python -m benchmarks.report
    python -m benchmarks.report --only page

``page``: a report of 100,000 rows of 384 numbers with a map by PCA, the page included, against a
minute. ``map``: the same rows placed into a Parquet file, in this process. ``tsne``: a report
whose map is made by t-SNE. ``browser``: the page with 5,000 points in a headless Chromium, without
a GPU: milliseconds from frame to frame while it is zoomed, dragged and searched, and those of the
script alone; a frame of a 60 Hz screen takes 16.7. ``BENCH_ROWS`` makes all of them smaller.
Writes ``benchmarks/results/report-<case>.json``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Case, run_cases
from benchmarks.lake_cases.tables import DIM, clusters, peak_memory, recipe_for
from embedding_core.recipe import Recipe
from embedding_core.reports.pages.table_page import table_page
from embedding_core.runs.look.overview import look_at
from embedding_core.runs.look.placed_rows import begin_map, finish_map, placed_here
from embedding_core.runs.look.vector_figures import Look
from tests.browser import Tab, browser
from tests.synthetic import add_files

ROWS = int(os.environ.get("BENCH_ROWS", "100000"))
ROWS_PER_FILE = 1_000
POINTS = 5_000
MOST_SECONDS = 60.0
FRAME_MS = 1_000 / 60
FRAMES = 120
ACTS = {
    "zoom": "map.dispatchEvent(new WheelEvent('wheel', {deltaY: n % 40 < 20 ? -60 : 60, "
    "clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, cancelable: true}))",
    "drag": "map.dispatchEvent(new PointerEvent('pointermove', {pointerId: 1, "
    "clientX: box.x + 300 + 5 * (n % 40 < 20 ? n % 20 : 20 - n % 20), clientY: box.y + 200}))",
    "hover": "map.dispatchEvent(new PointerEvent('pointermove', {pointerId: 1, "
    "clientX: box.x + 100 + 5 * n, clientY: box.y + 100 + 2 * n}))",
    "search": "find.value = 'word' + (n % 50), find.dispatchEvent(new Event('input'))",
}
"""What happens in every frame."""
BEFORE = {
    "drag": "map.setPointerCapture = () => {}; map.dispatchEvent(new PointerEvent('pointerdown', "
    "{pointerId: 1, clientX: box.x + 300, clientY: box.y + 200}));",
}
MEASURED = """
new Promise(done => {{
  const map = document.getElementById('map'), find = document.getElementById('search');
  map.scrollIntoView({{behavior: 'instant'}}); map.focus();
  const box = map.getBoundingClientRect(), frames = [], scripts = [];
  {before}
  let n = 0, last = 0;
  const step = now => {{
    if (last) frames.push(now - last);
    last = now;
    const began = performance.now();
    {act};
    scripts.push(performance.now() - began);
    if (n++ < {count}) requestAnimationFrame(step); else done([frames, scripts]);
  }};
  requestAnimationFrame(step);
}})
"""


def page(folder: Path) -> dict[str, Any]:
    """A report by PCA, and its page."""
    return _reported(_table(folder), Look(n_sampled=POINTS))


def tsne(folder: Path) -> dict[str, Any]:
    """A report whose map is made by t-SNE."""
    return _reported(_table(folder), Look(method="tsne", n_sampled=POINTS))


def placed(folder: Path) -> dict[str, Any]:
    """Every row with its place, written to a file."""
    recipe = _table(folder)
    with peak_memory() as seen:
        started = time.perf_counter()
        begun = begin_map(recipe, "pca", None, POINTS)
        done = finish_map(begun, placed_here(begun), folder / "map.parquet", started)
    return {"rows": done.rows, "dim": DIM, "file_bytes": done.size_bytes, **seen}


def in_browser(folder: Path) -> dict[str, Any]:
    """Frames of the page's map."""
    out = folder / "report.html"
    made = look_at(_table(folder), Look(n_sampled=POINTS))
    out.write_text(table_page(made))
    with browser(folder / "profile") as tab:
        started = time.perf_counter()
        tab.open(out.as_uri())
        opened = time.perf_counter() - started
        figures = {name: _frames(tab, name) for name in ACTS}
        version = tab.send("Browser.getVersion")["product"]
    return {
        "browser": version,
        "points": made.vectors.rows if made.vectors else 0,
        "page_bytes": out.stat().st_size,
        "seconds_to_open": round(opened, 2),
        "milliseconds": figures,
        "is_smooth": all(figure["frame_p50"] <= FRAME_MS * 1.1 for figure in figures.values()),
    }


def _frames(tab: Tab, name: str) -> dict[str, float]:
    script = MEASURED.format(before=BEFORE.get(name, ""), act=ACTS[name], count=FRAMES)
    frames, scripts = (np.array(times[5:]) for times in tab.run(script))
    tab.run("document.getElementById('reset').click()")
    return {
        "frame_p50": round(float(np.median(frames)), 1),
        "frame_p95": round(float(np.percentile(frames, 95)), 1),
        "script_p50": round(float(np.median(scripts)), 2),
        "script_p95": round(float(np.percentile(scripts, 95)), 2),
    }


def _reported(recipe: Recipe, look: Look) -> dict[str, Any]:
    with peak_memory() as seen:
        document = table_page(look_at(recipe, look))
    return {
        "rows": ROWS,
        "dim": DIM,
        "points": look.n_sampled,
        "page_bytes": len(document.encode()),
        "is_fast_enough": seen["seconds"] <= MOST_SECONDS,
        **seen,
    }


def _table(folder: Path) -> Recipe:
    """A table of made-up vectors and its recipe."""
    recipe = recipe_for(folder)
    uris = [f"s3://bucket/{number:06}.jsonl" for number in range(max(1, ROWS // ROWS_PER_FILE))]
    add_files(recipe, uris, min(ROWS, ROWS_PER_FILE), clusters())
    return recipe


CASES: dict[str, Case] = {"page": page, "map": placed, "tsne": tsne, "browser": in_browser}


if __name__ == "__main__":
    run_cases("report", CASES, ("pylance", "numpy", "jinja2", "scikit-learn"), __doc__)
