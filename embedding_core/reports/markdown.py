"""Old names of pages, for the flows until they use ``report_of``."""

from __future__ import annotations

from embedding_core.records import Plan
from embedding_core.reports.plan import PlanView
from embedding_core.reports.report import text_block
from embedding_core.reports.run import RunView
from embedding_core.runs.embed.finish_stage import RunReport

__all__ = ["ledger_page", "plan_page", "text_block"]


def plan_page(planned: Plan, cost: float | None) -> str:
    return PlanView(planned, cost).markdown()


def ledger_page(run: RunReport) -> str:
    return RunView(run).markdown()
