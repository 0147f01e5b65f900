"""Plans and reports in words: the same text for the terminal and for Prefect's artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake.index.vector import IndexReport
from embedding_core.lake.spaces.switching import Release
from embedding_core.records import PassedOver, Plan
from embedding_core.runs.answers import Answer
from embedding_core.runs.embed.finish_stage import RunReport
from embedding_core.runs.maintenance import MaintenanceReport
from embedding_core.runs.outcome import exit_code_of
from embedding_core.runs.table_status import FileLine, RejectLine, SpaceLine, Status

if TYPE_CHECKING:  # it loads torch, which only `bench` needs
    from embedding_core.encoder.bench.measure import ModelSpeed

FILES_SHOWN = 20
SPACES_SHOWN = 3
"""Retired ones; `embedlake releases` lists all."""


def plan_lines(planned: Plan, cost: float | None = None) -> list[str]:
    """The plan as ``terraform plan`` would put it."""
    others = _passed_over_lines(planned.passed_over)
    if planned.is_empty:
        kept = f" ({len(planned.kept_uris):,} more left the source)" if planned.kept_uris else ""
        rejects = ""
        if planned.only_rejects:
            rejects = (
                f"; {planned.only_rejects:,} of them gave nothing but rejects (`embedlake status "
                "RECIPE --rejects` lists why)"
            )
        return [
            f"Nothing to do: the table holds all {planned.unchanged:,} files as they are"
            f"{kept}{rejects}.",
            *others,
        ]
    n = counts(planned)
    lines = [
        f"{n['added']:,} files to add, {n['changed']:,} to replace, {n['moved']:,} moved, "
        f"{n['removed']:,} to remove, {n['unchanged']:,} unchanged"
    ]
    if planned.removes_too_much:
        lines.append(
            f"  DANGER: {planned.removed_share:.0%} of the table's files have left the source, "
            f"more than max_removed_share ({planned.max_removed_share:.0%}): a run will stop and "
            "ask for --allow-removals"
        )
    if planned.table_version is None:
        lines.append("  no table there: everything is embedded (if there was one, it is gone)")
    lines += column_lines(planned)
    lines += [f"  WARNING: {problem}" for problem in planned.sample_problems]
    marks = {"added": "+", "changed": "~", "moved": ">"}
    shown = [f"  {marks[one.change]} {one.file.uri}  ({one.why})" for one in planned.files]
    shown += [f"  - {uri}  (left the source)" for uri in planned.removed_uris]
    shown += [f"  ! {one.source_uri}  ({one.detail})" for one in planned.unreadable]
    lines += shown[:FILES_SHOWN]
    if len(shown) > FILES_SHOWN:
        lines.append(f"  … and {len(shown) - FILES_SHOWN:,} more (all with --json)")
    return [*lines, *others, _estimate_line(planned, cost)]


def _passed_over_lines(others: PassedOver) -> list[str]:
    kinds = [
        (others.hidden, "that begin with _ or ."),
        (others.excluded, "that source.exclude names"),
        (others.unmatched, "of no format that is read, or not in source.include"),
    ]
    said = [f"{n:,} {kind}" for n, kind in kinds if n]
    return [f"passed over in the source: {', '.join(said)}"] if said else []


def column_lines(planned: Plan) -> list[str]:
    """What a run does to the table's metadata columns."""
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


def counts(planned: Plan) -> dict[str, int]:
    """Files by what becomes of them."""
    changes = [one.change for one in planned.files]
    return {
        "added": changes.count("added"),
        "changed": changes.count("changed"),
        "moved": changes.count("moved"),
        "removed": len(planned.removed_uris),
        "unchanged": planned.unchanged,
        "unreadable": len(planned.unreadable),
        "kept": len(planned.kept_uris),
    }


def _estimate_line(planned: Plan, cost: float | None) -> str:
    line = (
        f"{planned.size_bytes:,} bytes, about {planned.estimated_chunks:,} chunks and "
        f"{planned.estimated_tokens:,} tokens"
    )
    if planned.estimated_seconds is not None:
        line += f", about {planned.estimated_seconds:,.0f} s at the rate measured so far"
    if cost is not None:
        line += f", about {cost:,.2f} at EMBEDLAKE_PRICE_PER_HOUR"
    return line


def speed_lines(speed: ModelSpeed, cost_per_million_tokens: float | None) -> list[str]:
    """What ``embedlake bench`` found."""
    lines = [
        f"{speed.device}, {speed.dtype}: matrices reach "
        f"{speed.matrix_flops_per_second / 1e9:,.0f} GFLOP/s here",
        "tokens per text   token budget   tokens/s   share of the matrix rate",
    ]
    lines += [
        f"{one.name:>15}   {one.batch_tokens:>12,}   {one.tokens_per_second:>8,.0f}   "
        f"{one.share_of_limit:>5.0%}"
        for one in speed.workloads
    ]
    lines.append(
        f"fastest on the mix: EMBEDLAKE_RESOURCES__BATCH_TOKENS={speed.batch_tokens}, "
        f"{speed.tokens_per_second:,.0f} tokens/s, peak memory "
        f"{speed.peak_memory_bytes / 2**20:,.0f} MiB"
    )
    if cost_per_million_tokens is not None:
        lines.append(f"a million tokens cost about {cost_per_million_tokens:,.4f}")
    return lines


def report_lines(report: RunReport) -> list[str]:
    """The ledger of a run and its verification."""
    lines = [
        f"table {report.table} · version {report.version} · {report.rows:,} rows",
        f"files: {report.added:,} added, {report.changed:,} replaced, {report.moved:,} moved, "
        f"{report.removed:,} removed, {report.unchanged:,} unchanged, "
        f"{report.unreadable:,} unreadable",
        f"ledger: {report.documents:,} documents, {report.chunks:,} chunks = "
        f"{report.embedded:,} embedded + {report.reused:,} reused + {report.dropped:,} dropped + "
        f"{report.failed:,} failed",
        f"speed: {report.tokens:,} tokens in {report.seconds:.1f} s "
        f"({report.tokens_per_second:,.0f} tokens/s, all stages)",
    ]
    if report.recomputed:
        lines.append(f"half precision overflowed for {report.recomputed:,} rows: computed wider")
    if report.rejects:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in report.rejects.items())
        lines.append(f"rejects: {reasons} (`embedlake status RECIPE --rejects` lists them)")
    if report.index is not None:
        lines.append(index_line(report.index))
    if report.maintenance is not None:
        lines += maintenance_lines(report.maintenance)
    checks = report.verification
    lines.append(
        f"verified: {checks.files:,} files, {checks.rows:,} rows, no problem"
        if checks.passed
        else f"VERIFICATION FAILED: {len(checks.problems)} problems"
    )
    lines += [f"  {problem}" for problem in checks.problems[:FILES_SHOWN]]
    lines += [f"FAILED: {failure}" for failure in report.failures[:FILES_SHOWN]]
    return lines


def index_line(index: IndexReport) -> str:
    """A vector index and what it finds."""
    return (
        f"index {index.name}: recall@10 {index.recall:.3f} measured against exact search, "
        f"{index.kind}, nprobes {index.nprobes}, refine factor {index.refine_factor}"
    )


def report_data(report: RunReport) -> dict[str, Any]:
    """The report as plain values, with its summary."""
    values = asdict(report)
    code = exit_code_of(values.pop("outcome"))
    return {"summary": run_summary(report), **values, "exit_code": code}


def maintenance_lines(done: MaintenanceReport) -> list[str]:
    """What maintenance did, table by table."""
    lines = []
    for one in done.tables:
        before, after = one.before, one.after
        lines.append(
            f"maintained {one.table}: {before.fragments:,} to {after.fragments:,} fragments, "
            f"{before.versions:,} to {after.versions:,} versions, {before.size_bytes:,} to "
            f"{after.size_bytes:,} bytes"
        )
        lines += [
            f"  {name} covers {share:.1%} of the rows"
            for name, share in after.indexed_share.items()
            if share < 1
        ]
    lines += [release_line(one) for one in done.retired]
    if done.orphans_removed:
        lines.append(f"removed {done.orphans_removed:,} files of runs that died long ago")
    return [*lines, *(f"NOT DONE, for the next time: {problem}" for problem in done.problems)]


def maintenance_data(done: MaintenanceReport) -> dict[str, Any]:
    """What maintenance did, as plain values, with its summary."""
    return {
        "summary": maintenance_summary(done),
        **asdict(done),
        "exit_code": exit_code_of(done.outcome),
    }


def maintenance_summary(done: MaintenanceReport) -> str:
    """One line for a state's message."""
    merged = sum(one.fragments_merged for one in done.tables)
    versions = sum(one.versions_removed for one in done.tables)
    outcome = f"unfinished, {len(done.problems)} problems" if done.problems else "done"
    return (
        f"{outcome}: {merged:,} fragments merged, {versions:,} versions removed from "
        f"{len(done.tables)} tables of {done.recipe} in {done.seconds:.1f} s"
    )


def answer_lines(answer: Answer, named: bool) -> list[str]:
    """What a query found; ``named``: under the query's id and words."""
    lines = [f"{answer.query_id}: {answer.query}"] if named else []
    for rank, hit in enumerate(answer.hits, start=1):
        lines.append(f"{rank:>3}. {hit.score:.3f}  {hit.doc_id}  ({hit.source_uri})")
        lines += [f"       {line}" for line in hit.text.splitlines()]
    return lines if answer.hits else [*lines, "nothing found"]


def status_lines(status: Status) -> list[str]:
    """A table's state in words."""
    space = status.space
    lines = [
        f"table {status.table} · version {status.version} · {status.rows:,} rows from "
        f"{status.files:,} files in {status.fragments:,} fragments",
        f"recipe: {status.recipe}",
        f"space in service: {status.space_id[:SHOWN_DIGITS]} · {space['model']} · "
        f"{space['dim']} dimensions · {space['max_tokens']:,} tokens · {space['pooling']} pooling",
        *(space_line(one) for one in status.spaces[1:]),
        *(f"space retired: {release_line(one)}" for one in status.retired[:SPACES_SHOWN]),
        "ledger: " + ", ".join(f"{n:,} {name}" for name, n in status.ledger.items()),
        "rejects: " + (", ".join(f"{n:,} {r}" for r, n in status.rejects.items()) or "none"),
    ]
    if status.vector_index is not None:
        lines.append(index_line(status.vector_index))
    lines += [
        f"index {name}: {n:,} rows not covered yet" for name, n in status.unindexed_rows.items()
    ]
    lines += [
        f"run {run.run_id[:SHOWN_DIGITS]} · {run.finished_at} · {run.files:,} files · "
        f"{run.chunks:,} chunks"
        for run in status.runs
    ]
    return lines


def space_line(space: SpaceLine) -> str:
    """A space that is not in service."""
    filled = "every row" if not space.missing_rows else f"{space.filled_share:.1%} of the rows"
    since = f", in service until {space.served_until}" if space.served_until else ""
    return (
        f"space {space.state}: {space.space_id[:SHOWN_DIGITS]} · {space.model} · {space.dim} "
        f"dimensions · {filled} in column {space.column}{since}"
    )


def release_lines(found: Sequence[Release]) -> list[str]:
    """Changes of a table's spaces, one a line."""
    return [release_line(one) for one in found] or ["no space was ever switched"]


def release_line(release: Release) -> str:
    """One change of a table's spaces."""
    gone = f"{release.from_space[:SHOWN_DIGITS]} ({release.from_model})"
    what = f"retire of {gone}"
    if release.to_space is not None:
        come = f"{release.to_space[:SHOWN_DIGITS]} ({release.to_model})"
        what = f"{release.action}: {come} in place of {gone}"
    run = f" · run {release.run_id[:SHOWN_DIGITS]}" if release.run_id else ""
    return f"{release.at} · {what} · by {release.by}{run}"


def file_list_lines(files: Sequence[FileLine]) -> list[str]:
    """Files and what they gave, one a line."""
    return [
        f"file {one.source_uri}: {one.rows:,} rows, {one.documents:,} documents, "
        f"{one.chunks:,} chunks = {one.embedded:,} embedded + {one.reused:,} reused + "
        f"{one.dropped:,} dropped + {one.failed:,} failed, {one.rejected:,} rejected"
        for one in files
    ]


def reject_list_lines(rejects: Sequence[RejectLine]) -> list[str]:
    """What was left out, one a line."""
    return [
        f"reject {one.source_uri}"
        + (f" position {one.position}" if one.position is not None else "")
        + (f" id {one.doc_id!r}" if one.doc_id is not None else "")
        + f": {one.reason}: {one.detail}"
        for one in rejects
    ]


def run_summary(report: RunReport) -> str:
    """One line for a state's message."""
    outcome = "finished with rejects" if report.outcome == "rejected" else report.outcome
    return (
        f"{outcome}: {report.embedded:,} chunks embedded, {report.rows:,} rows in "
        f"{report.table}, run {report.run_id[:SHOWN_DIGITS]}"
    )
