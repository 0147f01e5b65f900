"""The source against the table: what a run would do, before anything is paid for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from embedding_core.errors import SetupError
from embedding_core.identity import file_key, row_rules, rows_id, space_id
from embedding_core.lake import ledger
from embedding_core.lake.ownership.adoption import NO_CHANGES, ColumnChanges, column_changes
from embedding_core.lake.ownership.owner import check_owner
from embedding_core.lake.rows.foreign import check_all_ours
from embedding_core.lake.table import Table, table_of
from embedding_core.reasons import RETRIED
from embedding_core.recipe import Recipe
from embedding_core.records import FileVersion, Plan, PlannedFile, SourceFile, Space
from embedding_core.runs.embed.cutting import Cutting, cutting_of
from embedding_core.runs.embed.estimate import STARTING_SECONDS, estimate
from embedding_core.runs.embed.saved import reported_keys
from embedding_core.runs.job import resolve
from embedding_core.sources import discover

CHANGED_RULES = {
    "version": "embedlake cuts texts differently now",
    "id": "id field changed",
    "text": "text template changed",
    "metadata": "metadata columns changed",
    "chunk": "chunking changed",
    "tokenizer": "tokenizer changed",
    "length_limit": "input limit changed",
    "prompt": "document prompt changed",
    "over_length": "length policy changed",
}
"""Why rows are made again, by the row rule that is another one."""
SOME_RULE = "rules changed (text template, chunking, tokenizer or length policy)"
"""Said where the ledger does not know the old rules."""
PASSING = RETRIED
"""Reasons for a rejected file that say nothing of its content: the next run tries it again."""


def plan(recipe: Recipe, retry_reasons: Collection[str] = ()) -> Plan:
    """Compare the source with the table; changes nothing.

    Files with a reject of one of ``retry_reasons``, or of one that passes by itself, are worked on
    again though they did not change. Raises ``SetupError`` when the source, the model or the table
    cannot be used.
    """
    resolved = resolve(recipe.model)
    cutting = cutting_of(recipe, resolved)
    rules = rules_of(recipe, cutting)
    table = table_of(recipe)
    held = _held(table, recipe, resolved.space)
    found = discover(recipe.source, may_be_empty=bool(held.versions) and not recipe.keep_removed)
    comparison = _Comparison(
        rules,
        held,
        {file.uri: file for file in found.files},
        {reject.source_uri for reject in found.unreadable},
        PASSING.union(retry_reasons),
    )
    files, unchanged = comparison.to_do()
    gone = comparison.gone(files)
    with_rows = [uri for uri in gone if uri in held.versions]
    kept = tuple(with_rows) if recipe.keep_removed else ()
    removed = tuple(uri for uri in gone if not (kept and uri in held.versions))
    removed_keys = [key for uri in removed for key in held.versions.get(uri, ())]
    unknown = [one for one in files if one.change != "moved" and one.same_as is None]
    expected = estimate(unknown, recipe, cutting)
    rate = ledger.tokens_per_second(table)
    return Plan(
        recipe=recipe.name,
        space_id=space_id(resolved.space),
        rows_id=rows_id(rules),
        files=files,
        removed_uris=removed,
        removed_keys=tuple(sorted(removed_keys)),
        rowless_keys=held.rowless_keys({*removed, *(one.moved_from for one in files)}),
        removed_share=0.0 if kept or not with_rows else len(with_rows) / len(held.versions),
        max_removed_share=recipe.max_removed_share,
        kept_uris=kept,
        unchanged_uris=unchanged,
        only_rejects=sum(uri in held.rejects and uri not in held.versions for uri in unchanged),
        unreadable=found.unreadable,
        passed_over=found.passed_over,
        columns_added=held.columns.added,
        columns_dropped=held.columns.dropped,
        sample_problems=expected.problems,
        lost_share=held.share_by_other_rules(rows_id(rules)) if expected.nothing_usable else 0.0,
        table_version=held.version,
        estimated_chunks=expected.chunks,
        estimated_tokens=expected.tokens,
        work_seconds=expected.tokens / rate if rate and files else None,
        starting_seconds=STARTING_SECONDS,
    )


def rules_of(recipe: Recipe, cutting: Cutting) -> dict[str, Any]:
    """What decides the rows of the recipe."""
    return row_rules(recipe, cutting.spec, cutting.digest, cutting.limit, cutting.prompt)


def check_removals(planned: Plan, allowed: bool) -> None:
    """Raise ``SetupError`` for a plan that removes more than the recipe tolerates unasked: files
    that left the source, or rows that a changed recipe would put nothing in place of."""
    if planned.lost_share > planned.max_removed_share and not allowed:
        raise SetupError(
            f"the recipe was changed and can use none of the records that were sampled "
            f"({'; '.join(planned.sample_problems)}), so {planned.lost_share:.0%} of the table's "
            f"files would lose their rows, more than {planned.max_removed_share:.0%} "
            "(max_removed_share). Nothing was changed: correct the recipe, or run with "
            "--allow-removals if the rows are meant to go"
        )
    if planned.removes_too_much and not allowed:
        raise SetupError(
            f"{len(planned.removed_uris):,} files are no longer in the source, with "
            f"{planned.removed_share:.0%} of those in the table; above "
            f"{planned.max_removed_share:.0%} (max_removed_share) a run stops before any change, "
            "because a source that is only partly there would empty the table. Look at "
            "`embedlake plan`; if they are meant to go, run with --allow-removals, or set "
            "keep_removed: true to keep their rows"
        )


def is_outdated(planned: Plan, recipe: Recipe) -> bool:
    """Whether the table was changed after it was planned with."""
    table = table_of(recipe)
    version = int(table.dataset().version) if table.exists() else None
    return version != planned.table_version


@dataclass(frozen=True, slots=True)
class _Held:
    """What the table and its ledger know."""

    versions: dict[str, dict[str, int]]
    """Rows in the table by file key, by source URI."""
    entries: dict[str, FileVersion]
    """The ledger's lines, by file key."""
    unrecorded: Collection[str]
    """Keys that have rows but no such line yet: a run was cut off between the two."""
    rejects: Mapping[str, ledger.KnownRejects]
    """What is listed as left out, by source URI."""
    rules: Mapping[str, Mapping[str, Any]]
    """Row rules that files were cut by, by ``rows_id``."""
    version: int | None
    """Version of the table; None when there is none."""
    columns: ColumnChanges = NO_CHANGES

    def by_fingerprint(self, rules: str) -> dict[str, FileVersion]:
        """A version in the table for each content that it has rows of, cut by some rules."""
        return {
            entry.fingerprint: FileVersion(uri, key)
            for uri, held in self.versions.items()
            for key in held
            if (entry := self.entries.get(key)) is not None and entry.rows_id == rules
        }

    def share_by_other_rules(self, rules: str) -> float:
        """Files with rows that other rules made, per file that has rows."""
        others = [
            uri
            for uri, held in self.versions.items()
            if any(key in self.entries and self.entries[key].rows_id != rules for key in held)
        ]
        return len(others) / len(self.versions) if self.versions else 0.0

    def uris(self) -> set[str]:
        """Files that have rows, gave none or are listed in the rejects."""
        rowless = {one.uri for one in self.entries.values() if not one.n_rows}
        return {*self.versions, *self.rejects, *rowless}

    def rowless_keys(self, uris: Collection[str | None]) -> tuple[str, ...]:
        """File keys of versions of some files that gave no rows."""
        return tuple(key for key, one in self.entries.items() if not one.n_rows and one.uri in uris)


def _held(table: Table, recipe: Recipe, space: Space) -> _Held:
    if not table.exists():
        return _Held({}, {}, (), {}, {}, None)
    check_owner(table, recipe, space)
    newest = int(table.dataset().version)
    versions: dict[str, dict[str, int]] = defaultdict(dict)
    for version in table.file_versions():
        versions[version.uri][version.file_key] = version.n_rows
    entries = ledger.known_versions(table)
    unknown = {key for held in versions.values() for key in held} - entries.keys()
    check_all_ours(table, unknown)
    unrecorded = unknown & reported_keys(table) if unknown else ()
    rejects = ledger.known_rejects(table)
    return _Held(
        versions=dict(versions),
        entries=entries,
        unrecorded=unrecorded,
        rejects=rejects,
        rules=ledger.known_rules(table),
        version=newest,
        columns=column_changes(recipe, table.dataset().schema) if versions else NO_CHANGES,
    )


@dataclass(frozen=True, slots=True)
class _Comparison:
    rules: Mapping[str, Any]
    held: _Held
    files: Mapping[str, SourceFile]
    """What the source holds, by URI, sorted."""
    unreadable: Collection[str]
    """URIs that the source holds too, but nobody can read."""
    retried: frozenset[str]
    """Reasons of rejects for which a file is worked on again."""

    def to_do(self) -> tuple[tuple[PlannedFile, ...], tuple[str, ...]]:
        """(files to work on, URIs of the others), in the source's order."""
        rules = rows_id(self.rules)
        left, copies = self._left_the_source(), self.held.by_fingerprint(rules)
        todo: list[PlannedFile] = []
        unchanged: list[str] = []
        for uri, file in self.files.items():
            key = file_key(file, rules)
            held, same = self.held.versions.get(uri, {}), copies.get(file.fingerprint)
            same = None if same is not None and same.uri == uri else same
            if self._is_done(uri, key, held):
                if reasons := self._reasons(uri) & self.retried:
                    why = f"retried: {', '.join(sorted(reasons))}"
                    todo.append(self._again(file, key, held, why))
                else:
                    unchanged.append(uri)
            elif held:
                why = self._why_again(key, held) if key in held else self._why(file, held)
                olds, again = tuple(sorted(held)), key in self.held.entries
                todo.append(PlannedFile(file, key, "changed", why, olds, same_as=same, again=again))
            elif sources := left.get(file.fingerprint):
                todo.append(self._moved(file, key, sources.pop(0)))
            else:
                known = self.held.entries.get(key)
                why = "new file" if known is None else _why_gone(known)
                again = known is not None
                todo.append(PlannedFile(file, key, "added", why, same_as=same, again=again))
        return tuple(todo), tuple(unchanged)

    def gone(self, files: Iterable[PlannedFile]) -> tuple[str, ...]:
        """URIs that were worked on but are in the source neither under that name nor another."""
        moved = {one.moved_from for one in files}
        return tuple(sorted(self.held.uris() - self.files.keys() - set(self.unreadable) - moved))

    def _is_done(self, uri: str, key: str, held: Mapping[str, int]) -> bool:
        """Whether the table says of the file what its current version says, and nothing else. Of a
        version that was rejected as a whole it says what the last good one did."""
        entry = self.held.entries.get(key)
        if key in self.held.unrecorded:
            return False
        if key in held:
            return len(held) == 1 and (entry is None or entry.n_rows == held[key])
        if entry is None or entry.n_rows or entry.n_failed:
            return False
        return not held or entry.run_id in self.held.rejects.get(uri, NO_REJECTS).whole_by

    def _reasons(self, uri: str) -> frozenset[str]:
        return self.held.rejects.get(uri, NO_REJECTS).reasons

    def _again(self, file: SourceFile, key: str, held: Mapping[str, int], why: str) -> PlannedFile:
        change: Literal["changed", "added"] = "changed" if held else "added"
        return PlannedFile(file, key, change, why, tuple(sorted(held)), again=True)

    def _why_again(self, key: str, held: Mapping[str, int]) -> str:
        if key in self.held.unrecorded:
            return "its line in the ledger is missing"
        entry = self.held.entries.get(key)
        if entry is not None and entry.n_rows != held[key]:
            return f"the table has {held[key]} of its {entry.n_rows} rows: changed by hand"
        return "rows of another version are still there"

    def _why(self, file: SourceFile, held: Mapping[str, int]) -> str:
        known = [self.held.entries[old] for old in held if old in self.held.entries]
        if not known:
            return "content or rules changed (its old version is not in the ledger)"
        reasons = [] if any(one.fingerprint == file.fingerprint for one in known) else [
            "content changed"
        ]  # fmt: skip
        return ", ".join([*reasons, *self._changed_rules(known[-1].rows_id)])

    def _changed_rules(self, old_id: str) -> list[str]:
        if old_id == rows_id(self.rules):
            return []
        old = self.held.rules.get(old_id)
        if old is None:
            return [SOME_RULE]
        return [why for name, why in CHANGED_RULES.items() if old.get(name) != self.rules[name]]

    def _left_the_source(self) -> dict[str, list[str]]:
        """URIs with rows that the source does not name any more, by the fingerprint they had.

        The ledger is believed only where the file key confirms it.
        """
        found: dict[str, list[str]] = defaultdict(list)
        for uri in sorted(self.held.versions.keys() - self.files.keys() - set(self.unreadable)):
            for key in self.held.versions[uri]:
                entry = self.held.entries.get(key)
                if entry is None:
                    continue
                file = SourceFile(uri, entry.fingerprint, 0)
                if file_key(file, entry.rows_id) == key:
                    found[entry.fingerprint].append(uri)
                    break
        return found

    def _moved(self, file: SourceFile, key: str, old: str) -> PlannedFile:
        held = self.held.versions[old]
        ids = {self.held.entries[one].rows_id for one in held if one in self.held.entries}
        changed = [why for one in sorted(ids) for why in self._changed_rules(one)]
        why, again = ", ".join([f"moved from {old}", *changed]), key in self.held.entries
        olds = tuple(sorted(held))
        return PlannedFile(file, key, "moved", why, olds, moved_from=old, again=again)


NO_REJECTS = ledger.KnownRejects(frozenset(), frozenset())


def _why_gone(known: FileVersion) -> str:
    if known.n_rows:
        return "it was in the table before, its rows are gone"
    return "its chunks got no vectors"
