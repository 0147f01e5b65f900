"""What a user does with a table, and how it is looked at after that, each in a child process."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedding_core.encoder.hashing import HashingEncoder
from embedding_core.errors import EmbedlakeError, UsageError
from embedding_core.exports.spec import ExportSpec
from embedding_core.lake.query.search import Query
from embedding_core.lake.readers.feedback import Feedback, append_feedback, read_feedback
from embedding_core.lake.rows.embedded import embedded_texts
from embedding_core.lake.spaces.switching import promote, retire
from embedding_core.lake.table import table_of
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.records import EmbeddedUnit
from embedding_core.runs.answers import search
from embedding_core.runs.embed.execution import Begun, InProcess
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.embed.run import EmbedRun
from embedding_core.runs.exchange.exporting import export
from embedding_core.runs.exchange.importing import import_rows
from embedding_core.runs.job import locked_for
from embedding_core.runs.maintenance import maintain
from embedding_core.runs.repair import audit
from embedding_core.runs.space.build import build_space
from embedding_core.runs.space.release import go_back
from embedding_core.runs.table_status import status
from experiments.faults import shim
from experiments.faults.stage import Wrong, raise_if
from experiments.faults.world import TOLERANCE, differences, torn_files
from experiments.machine.model import Model, State
from experiments.machine.spaces import column_of, spaces_of, unfilled

BY = "the user"
LOCK_WAIT_SECONDS = 60.0
HITS = 3
FIRST_OPINION = datetime(2026, 1, 1, tzinfo=UTC)

Row = Mapping[str, Any]


class DyingProcess(InProcess):
    """Works on some units, then kills this process: where there is no shim."""

    def __init__(self, units: int) -> None:
        self._units_left = units

    def result(self, submitted: Begun) -> EmbeddedUnit | BaseException:
        """See ``UnitRunner``."""
        if not self._units_left:
            os._exit(shim.KILLED)
        self._units_left -= 1
        return super().result(submitted)


def embed(recipe: Recipe, resources: Resources, execution: InProcess | None = None) -> None:
    """Raises ``Wrong`` when the run fails, and when it leaves something to do.

    A plan before there is a table may be refused, since the source may have no files.
    """
    run = EmbedRun(recipe, resources, execution or InProcess(), uuid.uuid4().hex)
    report = run.to_the_end(time.perf_counter())
    gave_nothing = bool(report.rejected) and not (report.embedded or report.reused)
    if not report.verification.passed or (report.outcome != "done" and not gave_nothing):
        why = (*report.failures, *report.verification.problems)
        raise Wrong(f"the run ended as {report.outcome}: {why}")
    if report.rows and not plan(recipe).is_empty:
        raise Wrong("the run left something to do")


def build(recipe: Recipe, dim: int) -> None:
    """Give every row a vector of another space."""
    with locked_for(recipe, BY, LOCK_WAIT_SECONDS, "build"):
        build_space(recipe, ModelSpec(name="hashing", dim=dim), Resources(), BY)


def switch_to(recipe: Recipe, dim: int) -> None:
    """Promote a space."""
    promote(table_of(recipe), column_of(dim), BY)


def roll_back(recipe: Recipe) -> None:
    """Go back to the space that served before."""
    go_back(recipe, Resources(), BY)


def retire_space(recipe: Recipe, dim: int) -> None:
    """Drop a space that is not in service."""
    retire(table_of(recipe), column_of(dim), BY)


def maintain_table(recipe: Recipe, days_later: int) -> None:
    """Maintain the table, as if so many days had passed since its spaces left service."""
    raise_if(maintain(recipe, datetime.now(UTC) + timedelta(days=days_later)).problems)


def verify(recipe: Recipe) -> None:
    """Look for damage, of which there must be none."""
    status(recipe)
    raise_if(damage.what for damage in audit(recipe, Resources(), deep=True).damages)


def give_opinion(recipe: Recipe, number: int) -> None:
    """Say what a document is worth as an answer."""
    at = FIRST_OPINION + timedelta(seconds=number)
    append_feedback(table_of(recipe), [Feedback(at, f"query {number}", "d0", "relevant")])


def export_and_import(recipe: Recipe, serving: int, to: str, folder: Path, **how: bool) -> None:
    """Export the table, and import it into another, which must then be equal."""
    export(recipe, ExportSpec(to=to, shard_rows=5), str(folder), **how)
    copy_folder = folder.with_name("copy")
    shutil.rmtree(copy_folder, ignore_errors=True)  # another import may have been killed
    lake = recipe.lake.model_copy(update={"uri": str(copy_folder)})
    copy = recipe.model_copy(update={"lake": lake, "model": ModelSpec(name="hashing", dim=serving)})
    import_rows(copy, Resources(), str(folder))
    rows = table_of(copy).to_arrow()
    if not rows.equals(table_of(recipe).to_arrow(rows.schema.names)):
        raise Wrong(f"what was exported as {to} and imported differs from the table")


FILTERS: Mapping[str, tuple[Mapping[str, Any], Callable[[Row], bool]]] = {
    "": ({}, lambda row: True),
    "doc_id IN ('d0', 'd1')": ({}, lambda row: row["doc_id"] in ("d0", "d1")),
    "n_tokens > :n": ({"n": 5}, lambda row: row["n_tokens"] > 5),
    "source_uri LIKE '%/a.jsonl'": ({}, lambda row: row["source_uri"].endswith("/a.jsonl")),
    "tag = :tag": ({"tag": "b'c"}, lambda row: row["tag"] == "b'c"),
    "year IS NULL OR year = :year": ({"year": 2020}, lambda row: row["year"] in (None, 2020)),
}
"""Filters with their values, and what each means."""


def query(recipe: Recipe, words: str, where: str) -> None:
    """Search in the words' neighbourhood; a scan that uses no filter and no index must agree."""
    params, is_right = FILTERS[where]
    asked = Query(HITS, where or None, params, exact=True)
    table = table_of(recipe)
    rows = table.to_arrow()
    if not _fits(where, rows.schema):
        refusal(lambda: list(search(recipe, Resources(), {"words": words}, asked)), UsageError)
        return
    encoder = HashingEncoder(table.space()[1])
    vectors = np.asarray(encoder.encode_documents(embedded_texts(rows).to_pylist()))
    vectors = vectors.reshape(len(rows), encoder.space.dim)
    similarities = vectors @ encoder.encode_queries([words])[0]
    passing = {
        row["chunk_id"]: similarity
        for row, similarity in zip(rows.to_pylist(), similarities.tolist(), strict=True)
        if is_right(row)
    }
    best = sorted(passing.values(), reverse=True)[:HITS]
    (answer,) = search(recipe, Resources(), {"words": words}, asked)
    hits = {hit.chunk_id: hit.score for hit in answer.hits}
    if len(hits) != len(answer.hits) or not hits.keys() <= passing.keys():
        raise Wrong(f"{where}: of {list(hits)} only {list(passing)} pass")
    if not np.allclose(sorted(hits.values(), reverse=True), best, rtol=0, atol=TOLERANCE):
        raise Wrong(f"{where}: {list(hits.values())} are not the best of {list(passing.values())}")


def _fits(where: str, columns: pa.Schema) -> bool:
    """Whether a table has the columns that a filter names, of the types of its values."""
    kinds = {"tag": pa.string(), "year": pa.int64()}
    names = [name for name in kinds if f"{name} " in where]
    return all(name in columns.names and columns.field(name).type == kinds[name] for name in names)


def look(model: Model, states: Sequence[State]) -> dict[str, Any]:
    """Compare the table with the model and with the states that it may be in.

    Returns the number of its state, and what else the model cannot know.
    """
    recipe, spaces = model.recipe, spaces_of(model.recipe)
    table = table_of(recipe)
    opinions = [opinion.query for opinion in read_feedback(table)]
    state = State(spaces, len(opinions))
    if state not in states:
        raise Wrong(f"the table has {state}; it may have {list(states)}")
    if opinions != [f"query {number}" for number in range(len(opinions))]:
        raise Wrong(f"the opinions are {opinions}")
    if spaces is None:
        return {"state": states.index(state), "n_rows": 0, "unfilled": {}}
    if model.run_recipe is not None:
        contents = {uri: content for uri, (content,) in model.versions.items()}
        raise_if(differences(recipe, contents))
    else:
        plain = {
            uri: [replace(content, columns={}) for content in contents]
            for uri, contents in model.versions.items()
        }
        raise_if(torn_files(table.open(), plain))
    return {
        "state": states.index(state),
        "n_rows": len(table),
        "unfilled": unfilled(recipe, spaces.hidden_dims),
    }


def refusal(action: Callable[[], object], problem: type[EmbedlakeError] | None) -> None:
    """Do something that must be refused with an error of just this class, or not at all."""
    try:
        action()
    except EmbedlakeError as error:
        if type(error) is not problem:
            raise
    else:
        if problem is not None:
            raise Wrong(f"it was not refused with a {problem.__name__}")
