"""The report of an audit: the damage in a table, and whether it was taken out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from embedding_core.lake.upkeep.row_audit import Damage
from embedding_core.plurals import counted
from embedding_core.reports.report import Report
from embedding_core.runs.outcome import EXIT_CODES, Outcome
from embedding_core.runs.repair import AuditReport

SOURCES_SHOWN = 5
TAKEN_OUT = "taken out: `embedlake embed RECIPE` makes the rows again"
TO_TAKE_OUT = "`--repair` takes them out, and the next run makes the rows again"
FINAL = (
    "nothing can make feedback again: put the damaged file back from a copy, or move the folder of "
    "that table away to go on without"
)


@dataclass(frozen=True)
class AuditView(Report):
    """An audit in words, damage by damage."""

    record: ClassVar[type] = AuditReport
    audit: AuditReport

    @property
    def outcome(self) -> Outcome:
        return self.audit.outcome

    def summary(self) -> str:
        """The last line, which says how many damages there are and what to do."""
        return self.lines()[-1]

    def lines(self) -> list[str]:
        audit = self.audit
        extent = f"{counted(audit.rows, 'row')} of version {audit.version}"
        if audit.deep:
            extent += f", each read, {counted(audit.encoded_again, 'vector')} made again"
        if not audit.damages:
            return [f"{audit.table}: no damage found ({extent})"]
        lines = [line for damage in audit.damages for line in _damage_lines(damage)]
        todo = []
        if len(audit.final) < len(audit.damages):
            todo.append(TAKEN_OUT if audit.repaired else TO_TAKE_OUT)
        if audit.final:
            todo.append(FINAL)
        end = f"{counted(len(audit.damages), 'damage')} in {extent}; {'; '.join(todo)}"
        return [*lines, end]

    def data(self) -> dict[str, Any]:
        damages = [
            asdict(damage) | {"file_keys": sorted(damage.file_keys)}
            for damage in self.audit.damages
        ]
        return asdict(self.audit) | {"damages": damages, "exit_code": EXIT_CODES[self.outcome]}


def _damage_lines(damage: Damage) -> list[str]:
    lines = [f"{damage.table}: {damage.what}"]
    if damage.data_files:
        lines.append(f"  in data/{', data/'.join(damage.data_files)}")
    if damage.rows:
        more = ", …" if damage.n_rows > len(damage.rows) else ""
        rows = ", ".join(map(str, damage.rows))
        lines.append(
            f"  {counted(damage.n_rows, 'row')} of fragment {damage.fragment_id}: {rows}{more}"
        )
    elif damage.n_rows and damage.fragment_id is not None:
        lines.append(f"  {counted(damage.n_rows, 'row')} of fragment {damage.fragment_id}")
    if damage.source_uris:
        uris = damage.source_uris[:SOURCES_SHOWN]
        n_more = damage.n_sources - len(uris)
        lines.append(f"  from {', '.join(uris)}" + (f" and {n_more:,} more" if n_more else ""))
    return lines


REPORT = AuditView
