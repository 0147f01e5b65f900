"""Old names of reports, for the flows and their tests until they use ``report_of``."""

from __future__ import annotations

from typing import Any

from embedding_core.records import Plan
from embedding_core.reports.maintenance import MaintenanceView
from embedding_core.reports.plan import PlanView
from embedding_core.reports.run import RunView
from embedding_core.runs.embed.finish_stage import RunReport
from embedding_core.runs.maintenance import MaintenanceReport


def plan_lines(planned: Plan, cost: float | None = None) -> list[str]:
    return PlanView(planned, cost).lines()


def report_lines(run: RunReport) -> list[str]:
    return RunView(run).lines()


def report_data(run: RunReport) -> dict[str, Any]:
    return RunView(run).data()


def run_summary(run: RunReport) -> str:
    return RunView(run).summary()


def maintenance_lines(done: MaintenanceReport) -> list[str]:
    return MaintenanceView(done).lines()


def maintenance_data(done: MaintenanceReport) -> dict[str, Any]:
    return MaintenanceView(done).data()


def maintenance_summary(done: MaintenanceReport) -> str:
    return MaintenanceView(done).summary()
