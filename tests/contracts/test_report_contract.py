"""What every registered report can do, each with the record of real work."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

import embedding_core
from embedding_core.encoder.bench.measure import ModelSpeed, Workload
from embedding_core.encoder.bench.rates import EngineComparison, EngineRates, Rate
from embedding_core.errors import Action, LakeError
from embedding_core.exports.spec import ExportSpec
from embedding_core.lake.query.search import Query
from embedding_core.lake.spaces import switching
from embedding_core.lake.table import table_of
from embedding_core.lake.upkeep.row_audit import Damage
from embedding_core.recipe import LakeSpec, ModelSpec, Resources
from embedding_core.reports.report import HINTS, WRITTEN, report_of, said
from embedding_core.runs import maintenance, repair, table_status
from embedding_core.runs.answers import search
from embedding_core.runs.embed.planning import plan
from embedding_core.runs.exchange.exporting import export
from embedding_core.runs.exchange.feedback_export import feedback_report
from embedding_core.runs.exchange.importing import import_rows
from embedding_core.runs.inputs.checking import check_file
from embedding_core.runs.inputs.drafting import Wish, draft
from embedding_core.runs.inputs.peeking import peek
from embedding_core.runs.inputs.table_counting import count_table
from embedding_core.runs.look.overview import look_at
from embedding_core.runs.look.placed_rows import begin_map, finish_map, placed_here
from embedding_core.runs.outcome import EXIT_CODES
from embedding_core.runs.space.build import build_space
from embedding_core.runs.space.evaluation import evaluate
from embedding_core.runs.space.release import ReembedReport
from embedding_core.runs.space.release_gate import gate
from tests.driver import recipe_for, run, write_jsonl

NAMES = WRITTEN.names()
TEXTS = {f"d{n}": f"document {n} has the number {n * 7919}. And more of it." for n in range(5)}
SPEED = ModelSpeed(
    device="cpu",
    dtype="float32",
    matrix_flops_per_second=1e11,
    workloads=(Workload("mix", 1024, 900.0, 0.5),),
    batch_tokens=1024,
    tokens_per_second=900.0,
    peak_memory_bytes=2**30,
)

RATES = EngineRates("m at http://host", "0" * 64, (Rate("50", 800.0), Rate("mix", 900.0)))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A record for each report: of a table that is made, judged, switched and looked at."""
    folder = tmp_path_factory.mktemp("reports")
    write_jsonl(folder, "a.jsonl", TEXTS | {"empty": " "})
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "document 3"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td3\t1\n")
    recipe, resources = recipe_for(folder, model={"dim": 256}), Resources()
    labels = str(folder / "queries.jsonl"), str(folder / "qrels.tsv")
    records: dict[str, Any] = {"plan": plan(recipe), "run": run(recipe), "speed": SPEED}
    records["engine_rates"] = EngineComparison((RATES,))
    space = build_space(recipe, ModelSpec(name="hashing", dim=128), resources, "build")
    records["gate"] = gate(recipe, resources, space.column)
    release = switching.promote(table_of(recipe), space.column, "me", wait_seconds=10)
    records["releases"] = release
    records["maintenance"] = maintenance.maintain(recipe)
    records["audit"] = repair.audit(recipe, resources, deep=True)
    records["status"] = table_status.status(recipe)
    records["exported"] = export(recipe, ExportSpec(to="parquet"), str(folder / "exported"))
    lake, model = (
        LakeSpec(uri=str(folder / "new"), table="docs"),
        ModelSpec(name="hashing", dim=128),
    )
    new = recipe.model_copy(update={"lake": lake, "model": model})
    records["imported"] = import_rows(new, resources, str(folder / "exported"))
    records["learned"] = feedback_report(recipe)
    records["peek"] = peek(recipe, n_records=9)
    records["draft"] = draft(Wish(recipe.source.uri, folder, "drafted", "hashing"))
    records["statistics"] = count_table(recipe, "file")
    records["overview"] = look_at(recipe)
    begun = begin_map(recipe, "pca", None, 100)
    records["placed"] = finish_map(begun, placed_here(begun), folder / "map.parquet", 0.0)
    records["validation"] = check_file(recipe, "a.jsonl")
    records["evaluation"] = evaluate(recipe, resources, *labels, "vector")
    (records["answers"],) = search(recipe, resources, {"q1": "document 3"}, Query(k=2))
    records["reembed"] = ReembedReport(
        run_id="run", recipe="test", table="docs", model="hashing", outcome="promoted",
        space_id=space.space_id, column=None, sampled_rows=0, sampled_tokens=0, sample=None,
        space=space, gate=records["gate"], index=None, release=release, failures=(), seconds=1.0,
    )  # fmt: skip
    return records


def test_each_registered_report_has_a_record_here(records: dict[str, Any]) -> None:
    assert set(records) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_report_is_chosen_by_the_class_of_its_record(name: str, records: dict[str, Any]) -> None:
    assert type(report_of(records[name])) is WRITTEN.get(name)


@pytest.mark.parametrize("name", NAMES)
def test_summary_is_a_line_and_lines_are_lines(name: str, records: dict[str, Any]) -> None:
    report = report_of(records[name])
    assert report.lines()
    for line in (report.summary(), *report.lines()):
        assert line.strip() and len(line.splitlines()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_data_is_json_and_its_exit_code_that_of_the_outcome(
    name: str, records: dict[str, Any]
) -> None:
    report = report_of(records[name])
    data = report.data()
    assert json.loads(json.dumps(data)).keys() == data.keys()
    assert data.get("exit_code", EXIT_CODES["done"]) == EXIT_CODES[report.outcome]
    assert data.get("summary", report.summary()) == report.summary()


@pytest.mark.parametrize("name", NAMES)
def test_markdown_is_a_page(name: str, records: dict[str, Any]) -> None:
    assert report_of(records[name]).markdown().startswith(("# ", "```\n"))


@pytest.mark.parametrize(
    ("name", "ended_badly", "outcome"),
    [
        ("run", lambda run: replace(run, outcome="failed"), "failed"),
        ("run", lambda run: replace(run, outcome="rejected"), "rejected"),
        ("maintenance", lambda done: replace(done, problems=("no answer",)), "failed"),
        ("gate", lambda gate: replace(gate, verdict="no"), "refused"),
        ("reembed", lambda run: replace(run, outcome="refused"), "refused"),
        ("reembed", lambda run: replace(run, outcome="failed"), "failed"),
        ("validation", lambda check: replace(check, extra=1), "failed"),
        ("audit", lambda audit: replace(audit, damages=(DAMAGE,)), "failed"),
        ("audit", lambda audit: replace(audit, damages=(DAMAGE,), repaired=True), "done"),
    ],
)
def test_outcome_decides_the_exit_code(
    name: str, ended_badly: Callable[[Any], Any], outcome: str, records: dict[str, Any]
) -> None:
    report = report_of(ended_badly(records[name]))
    assert report.outcome == outcome
    assert json.loads(json.dumps(report.data()))["exit_code"] == EXIT_CODES[report.outcome]


DAMAGE = Damage("row", "docs", "a vector is not of unit length", file_keys=frozenset({"b", "a"}))


def test_record_without_a_report_is_refused() -> None:
    with pytest.raises(TypeError, match="no report is about records of the class int"):
        report_of(1)


def test_error_is_shown_with_the_command_that_heals_it() -> None:
    message = "there is no table 'docs'"
    assert said(LakeError(message)) == message
    shown = said(LakeError(message, action="embed"))
    assert shown == "there is no table 'docs'; run `embedlake embed RECIPE`"
    assert set(HINTS) == set(get_args(Action))


COMMAND = re.compile(r"`embedlake |(?<![\w-])--[a-z]|EMBEDLAKE_(?!ENGINE_TOKEN)[A-Z]|\bRECIPE\b")
"""What only the command line has; the token of a server is read by the library itself."""


def spoken(module: Path) -> Iterator[str]:
    """Every string of a module that is no docstring."""
    tree = ast.parse(module.read_text())
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in silent
        ):
            yield node.value


@pytest.mark.slow
def test_library_names_no_command_outside_its_reports() -> None:
    library = Path(embedding_core.__file__).parent
    modules = set(library.rglob("*.py")) - set((library / "reports").rglob("*.py"))
    named = [text for module in modules for text in spoken(module) if COMMAND.search(text)]
    assert len(modules) > 100 and named == []


@pytest.mark.slow
def test_reports_load_no_orchestrator_no_terminal_and_no_picture() -> None:
    program = (
        "import sys\n"
        "from embedding_core.reports.report import WRITTEN\n"
        f"assert len(WRITTEN.working()) == {len(NAMES)}\n"
        "heavy = ('click', 'prefect', 'ray', 'rich', 'matplotlib')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


TOY = """
class Toy:
    name = "a toy"

class ToyReport:
    record = Toy
    outcome = "refused"

    def __init__(self, toy):
        self.toy = toy

    def summary(self):
        return self.toy.name

    def lines(self):
        return [self.toy.name]

    def data(self):
        return {"name": self.toy.name}

    def markdown(self):
        return "# " + self.toy.name
"""


ASK = """
from toy_reports import Toy

from embedding_core.reports.report import WRITTEN, report_of
from embedding_core.runs.exchange.exporting import export
from embedding_core.runs.exchange.importing import import_rows
from embedding_core.runs.inputs.checking import check_file
from embedding_core.runs.inputs.peeking import peek
from embedding_core.runs.outcome import EXIT_CODES

report = report_of(Toy())
(problem,) = WRITTEN.problems()
assert "toy-reports" in problem and "'broken'" in problem
print(report.summary(), EXIT_CODES[report.outcome])
"""


@pytest.mark.slow
def test_report_of_another_package_is_chosen_by_its_record(tmp_path: Path) -> None:
    info = tmp_path / "toy_reports-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-reports\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[embedlake.reports]\nbroken = no_such_module:Report\ntoy = toy_reports:ToyReport\n"
    )
    (tmp_path / "toy_reports.py").write_text(TOY)
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "a toy 4\n"
