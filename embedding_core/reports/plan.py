"""The report of a plan: what a run would do to the table, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from embedding_core.plurals import counted
from embedding_core.records import ChoiceSummary, PassedOver, Plan, PlannedFile
from embedding_core.reports.report import LINES_SHOWN, Report, table, text_block

MARKS = {"added": "+", "changed": "~", "moved": ">"}
CHOICE = ("chosen", "duplicates", "left_out")
"""What is shown of the choice among a file's documents."""
PAGE_FILES = 200
"""Files in the page's table. A page of thousands helps nobody; `embedlake plan --json` has all."""


@dataclass(frozen=True)
class PlanView(Report):
    """A plan as ``terraform plan`` would show it."""

    record: ClassVar[type] = Plan
    plan: Plan
    cost: float | None = None
    """What the run is estimated to cost; None without a price."""

    def summary(self) -> str:
        return self.lines()[0]

    def lines(self) -> list[str]:
        passed_over = _passed_over_lines(self.plan.passed_over)
        choice = _choice_lines(self.plan.choice)
        if self.plan.is_empty:
            return [_nothing_to_do(self.plan), *choice, *passed_over]
        return [*self._heading(), *self._file_lines(), *choice, *passed_over, self._estimate()]

    def data(self) -> dict[str, Any]:
        return asdict(replace(self.plan, files=())) | {
            "files": list(map(_file_data, self.plan.files)),
            "size_bytes": self.plan.size_bytes,
            "counts": _counts(self.plan),
            "unchanged": self.plan.unchanged,
            "removes_too_much": self.plan.removes_too_much,
            "estimated_seconds": self.plan.estimated_seconds,
            "nothing_to_do": self.plan.is_empty,
            "estimated_cost": self.cost,
        }

    def markdown(self) -> str:
        """Every file that the run works on, with what happens to it and why."""
        planned = self.plan
        files: list[tuple[str, str, str]] = []
        files += [(file.file.uri, file.change, file.why) for file in planned.files]
        files += [(uri, "removed", "left the source") for uri in planned.removed_uris]
        files += [(reject.source_uri, "unreadable", reject.detail) for reject in planned.unreadable]
        blocks = [f"# Plan for {planned.recipe}", text_block(self._lines_without_files())]
        if files:
            blocks.append(table(("file", "change", "why"), files[:PAGE_FILES]))
        if len(files) > PAGE_FILES:
            n_more = len(files) - PAGE_FILES
            blocks.append(f"… and {n_more:,} more: `embedlake plan RECIPE --json`")
        return "\n\n".join(blocks)

    def _heading(self) -> list[str]:
        planned, n = self.plan, _counts(self.plan)
        lines = [
            f"{counted(n['added'], 'file')} to add, {n['changed']:,} to replace, "
            f"{n['moved']:,} moved, {n['removed']:,} to remove, {n['unchanged']:,} unchanged"
        ]
        if planned.removes_too_much:
            lines.append(
                f"  DANGER: {planned.removed_share:.0%} of the table's files have left the source, "
                f"more than max_removed_share ({planned.max_removed_share:.0%}): a run will stop "
                "and ask for --allow-removals"
            )
        if planned.is_source_empty:
            lines.append("  WARNING: the source holds no file that the recipe reads")
        if planned.table_version is None:
            lines.append("  no table there: everything is embedded (if there was one, it is gone)")
        lines += _column_lines(planned)
        return [*lines, *(f"  WARNING: {problem}" for problem in planned.sample_problems)]

    def _file_lines(self) -> list[str]:
        """The first files, one a line, and how many are not shown."""
        planned = self.plan
        lines = [f"  {MARKS[file.change]} {file.file.uri}  ({file.why})" for file in planned.files]
        lines += [f"  - {uri}  (left the source)" for uri in planned.removed_uris]
        lines += [f"  ! {reject.source_uri}  ({reject.detail})" for reject in planned.unreadable]
        if len(lines) <= LINES_SHOWN:
            return lines
        n_more = len(lines) - LINES_SHOWN
        return [*lines[:LINES_SHOWN], f"  … and {n_more:,} more (all with --json)"]

    def _estimate(self) -> str:
        planned = self.plan
        if planned.estimated_chunks is None or planned.estimated_tokens is None:
            return (
                f"{counted(planned.size_bytes, 'byte')}; no estimate, nothing is downloaded to plan"
            )
        line = (
            f"{counted(planned.size_bytes, 'byte')}, about "
            f"{counted(planned.estimated_chunks, 'chunk')} and "
            f"{counted(planned.estimated_tokens, 'token')}"
        )
        if planned.estimated_seconds is not None:
            line += f", about {planned.estimated_seconds:,.0f} s at the rate measured so far"
        if self.cost is not None:
            line += f", about {self.cost:,.2f} at EMBEDLAKE_PRICE_PER_HOUR"
        return line

    def _lines_without_files(self) -> list[str]:
        """The lines less those about single files, which the page's table has."""
        marks = tuple(f"  {mark} " for mark in (*MARKS.values(), "-", "!"))
        return [line for line in self.lines() if not line.startswith(marks)]


def _file_data(planned: PlannedFile) -> dict[str, Any]:
    """The values of a file. ``asdict`` copies each of them, a second for 50,000 files."""
    choice, same_as = planned.choice, planned.same_as
    return _values(planned) | {
        "file": _values(planned.file),
        "same_as": None if same_as is None else _values(same_as),
        "choice": None if choice is None else {name: getattr(choice, name) for name in CHOICE},
    }


def _values(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _nothing_to_do(planned: Plan) -> str:
    kept = f" ({len(planned.kept_uris):,} more left the source)" if planned.kept_uris else ""
    rejects = ""
    if planned.only_rejects:
        rejects = (
            f"; {planned.only_rejects:,} of them gave nothing but rejects (`embedlake status "
            "RECIPE --rejects` lists why)"
        )
    if planned.is_source_empty:
        kept = f"keeps the rows of {counted(len(planned.kept_uris), 'file')} that left it"
        table = f"keep_removed {kept}" if planned.kept_uris else "the table has no rows of any"
        return f"Nothing to do: the source holds no file that the recipe reads, and {table}."
    files = f"all {counted(planned.unchanged, 'file')} as they are"
    if planned.unchanged == 1:
        files = "its only file as it is"
    return f"Nothing to do: the table holds {files}{kept}{rejects}."


def _passed_over_lines(files: PassedOver) -> list[str]:
    kinds = [
        (files.hidden, "that begin with _ or ."),
        (files.excluded, "that source.exclude names"),
        (files.unmatched, "of no format that is read, or not in source.include"),
    ]
    names = ", ".join(f"{n:,} {kind}" for n, kind in kinds if n)
    return [f"passed over in the source: {names}"] if names else []


def _choice_lines(choice: ChoiceSummary | None) -> list[str]:
    """What is left out by choice, and what is read to find out."""
    if choice is None:
        return []
    lines = []
    if choice.files_to_survey:
        lines.append(
            f"to choose documents, a run first reads {counted(choice.files_to_survey, 'file')} "
            f"({counted(choice.bytes_to_survey, 'byte')}) at most; then other files may change, too"
        )
    if choice.chosen or not choice.files_to_survey:
        lines.append(
            f"chosen: {counted(choice.chosen, 'document')}; left out by choice: "
            f"{counted(choice.duplicates, 'duplicate')}, {choice.left_out:,} by the "
            "sample or the limit"
        )
    if choice.files_beyond:
        lines.append(f"not read: {counted(choice.files_beyond, 'file')} behind source.limit")
    return lines


def _column_lines(planned: Plan) -> list[str]:
    """What the run does to the table's metadata columns."""
    lines = []
    if planned.columns_added:
        lines.append(
            f"  columns to add: {', '.join(planned.columns_added)} (filled from the files; no text "
            "is embedded again for it)"
        )
    if planned.columns_dropped:
        lines.append(
            f"  columns to DROP with their values: {', '.join(planned.columns_dropped)} (no longer "
            "in the recipe, or of another type there)"
        )
    return lines


def _counts(planned: Plan) -> dict[str, int]:
    """Number of files by what happens to them."""
    changes = [file.change for file in planned.files]
    return {
        "added": changes.count("added"),
        "changed": changes.count("changed"),
        "moved": changes.count("moved"),
        "removed": len(planned.removed_uris),
        "unchanged": planned.unchanged,
        "unreadable": len(planned.unreadable),
        "kept": len(planned.kept_uris),
    }


REPORT = PlanView
