"""A source beside its table: which files have to be worked on, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from embedding_core.identity import file_key, rows_id
from embedding_core.lake import ledger
from embedding_core.lake.ownership.adoption import NO_CHANGES, ColumnChanges, column_changes
from embedding_core.lake.ownership.owner import check_all_ours, check_owner
from embedding_core.lake.scans import file_versions
from embedding_core.lake.snapshot import Snapshot
from embedding_core.plurals import counted
from embedding_core.recipe import Recipe
from embedding_core.records import FileVersion, PlannedFile, SourceFile, Space
from embedding_core.runs.choosing.state import ALL, UNSURVEYED, Choices

CHANGED_RULES = {
    "version": "embedlake cuts texts differently now",
    "format": "format of the files changed",
    "formats": "options of a format changed",
    "id": "id field changed",
    "text": "text template changed",
    "title": "title changed",
    "normalize": "normal form of texts changed",
    "whitespace": "white space of texts changed",
    "conversation": "conversation section changed",
    "map": "map or its source changed",
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


@dataclass(frozen=True, slots=True)
class TableState:
    """What the table and its ledger say of files."""

    versions: dict[str, dict[str, int]]
    """Rows in the table by file key, by source URI."""
    entries: dict[str, FileVersion]
    """The ledger's lines, by file key."""
    rejects: Mapping[str, ledger.KnownRejects]
    """What is listed as left out, by source URI."""
    rules: Mapping[str, Mapping[str, Any]]
    """Row rules that files were cut by, by ``rows_id``."""
    version: int | None
    """Version of the table; None before there is a table."""
    columns: ColumnChanges = NO_CHANGES

    def by_fingerprint(self, rules: str) -> dict[str, FileVersion]:
        """A version in the table for each content that it has rows of, cut by some rules."""
        return {
            entry.fingerprint: FileVersion(uri, key)
            for uri, rows_by_key in self.versions.items()
            for key in rows_by_key
            if (entry := self.entries.get(key)) is not None and entry.rows_id == rules
        }

    def share_by_other_rules(self, files: Iterable[PlannedFile], rules: str) -> float:
        """Files of a plan that replace rows that other rules made, or nobody knows which, per file
        that has rows."""
        n_others = sum(
            any(
                (entry := self.entries.get(key)) is None or entry.rows_id != rules
                for key in file.replaces
                if key != file.file_key
            )
            for file in files
        )
        return n_others / len(self.versions) if self.versions else 0.0

    def made_of(self, keys: Iterable[str]) -> list[FileVersion]:
        """The ledger's lines of some versions, as far as it has them and they say what the rows
        were made of; imports know no content and no rules."""
        lines = [self.entries[key] for key in keys if key in self.entries]
        return [line for line in lines if line.fingerprint]

    def uris(self) -> set[str]:
        """Files that have rows, gave none or are listed in the rejects."""
        rowless = {entry.uri for entry in self.entries.values() if not entry.n_rows}
        return {*self.versions, *self.rejects, *rowless}

    def rowless_keys(self, uris: Collection[str | None]) -> tuple[str, ...]:
        """File keys of versions of some files that gave no rows."""
        return tuple(
            key for key, entry in self.entries.items() if not entry.n_rows and entry.uri in uris
        )


def table_state(
    snapshot: Snapshot | None, history: Snapshot | None, recipe: Recipe, space: Space
) -> TableState:
    """What a table and its ledger, ``history``, say now. Errors as ``check_owner``."""
    if snapshot is None:
        return TableState({}, {}, {}, {}, None)
    check_owner(snapshot, recipe, space)
    versions: dict[str, dict[str, int]] = defaultdict(dict)
    for version in file_versions(snapshot):
        versions[version.uri][version.file_key] = version.n_rows
    entries = ledger.known_versions(history)
    unknown = {key for rows_by_key in versions.values() for key in rows_by_key} - entries.keys()
    check_all_ours(snapshot, unknown)
    return TableState(
        versions=dict(versions),
        entries=entries,
        rejects=ledger.known_rejects(snapshot.table),
        rules=ledger.known_rules(history),
        version=snapshot.version,
        columns=column_changes(recipe, snapshot.schema) if versions else NO_CHANGES,
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The files of a source beside what the table has of them."""

    rules: Mapping[str, Any]
    table: TableState
    files: Mapping[str, SourceFile]
    """What the source holds, by URI, sorted."""
    unreadable: Collection[str]
    """URIs that the source holds too, but nobody can read."""
    retried: frozenset[str]
    """Reasons of rejects for which a file is worked on again."""
    choices: Choices = ALL
    """Which documents of the files are taken."""

    def to_do(self) -> tuple[tuple[PlannedFile, ...], tuple[str, ...]]:
        """(files to work on, URIs of the others), in the source's order."""
        rules = rows_id(self.rules)
        left, copies = self._left_the_source(), self.table.by_fingerprint(rules)
        todo: list[PlannedFile] = []
        unchanged: list[str] = []
        for uri, file in self.files.items():
            choice = self.choices.of(uri)
            key = file_key(file, rules, choice.digest if choice is not None else "")
            rows_by_key, same = self.table.versions.get(uri, {}), copies.get(file.fingerprint)
            same = None if same is not None and same.uri == uri else same
            if self._is_done(uri, key, rows_by_key):
                if reasons := self.table.rejects.get(uri, NO_REJECTS).reasons & self.retried:
                    why = f"retried: {', '.join(sorted(reasons))}"
                    todo.append(self._again(file, key, rows_by_key, why))
                else:
                    unchanged.append(uri)
            elif rows_by_key:
                why = (
                    self._why_again(key, rows_by_key)
                    if key in rows_by_key
                    else self._why(file, rows_by_key)
                )
                old_keys, is_again = tuple(sorted(rows_by_key)), key in self.table.entries
                todo.append(
                    PlannedFile(file, key, "changed", why, old_keys, same_as=same, again=is_again)
                )
            elif sources := left.get(file.fingerprint):
                todo.append(self._moved(file, key, sources.pop(0)))
            else:
                entry = self.table.entries.get(key)
                why = "new file" if entry is None else _why_gone(entry)
                is_again = entry is not None
                todo.append(PlannedFile(file, key, "added", why, same_as=same, again=is_again))
        if self.choices is ALL:
            return tuple(todo), tuple(unchanged)
        chosen = (replace(planned, choice=self.choices.of(planned.file.uri)) for planned in todo)
        return tuple(chosen), tuple(unchanged)

    def removed(self, files: Iterable[PlannedFile]) -> tuple[str, ...]:
        """URIs that the table knows and the source no longer has, under that name or another."""
        moved = {file.moved_from for file in files}
        return tuple(sorted(self.table.uris() - self.files.keys() - set(self.unreadable) - moved))

    def _is_done(self, uri: str, key: str, rows_by_key: Mapping[str, int]) -> bool:
        """Whether the table has the rows of the file's current version and no others, and the
        ledger its line. A version that was rejected as a whole is done when the rows of the last
        good version stay."""
        entry = self.table.entries.get(key)
        if entry is None:
            return False
        if key in rows_by_key:
            return len(rows_by_key) == 1 and entry.n_rows == rows_by_key[key]
        if entry.n_rows or entry.n_failed:
            return False
        return not rows_by_key or entry.run_id in self.table.rejects.get(uri, NO_REJECTS).whole_by

    def _again(
        self, file: SourceFile, key: str, rows_by_key: Mapping[str, int], why: str
    ) -> PlannedFile:
        change: Literal["changed", "added"] = "changed" if rows_by_key else "added"
        return PlannedFile(file, key, change, why, tuple(sorted(rows_by_key)), again=True)

    def _why_again(self, key: str, rows_by_key: Mapping[str, int]) -> str:
        entry = self.table.entries.get(key)
        if entry is None:
            return "its line in the ledger is missing"
        if entry.n_rows != rows_by_key[key]:
            return (
                f"the table has {rows_by_key[key]} of its {counted(entry.n_rows, 'row')}: "
                "changed by hand"
            )
        return "rows of another version are still there"

    def _why(self, file: SourceFile, rows_by_key: Mapping[str, int]) -> str:
        entries = self.table.made_of(rows_by_key)
        if not entries:
            return "content or rules changed (the ledger does not say what its rows were made of)"
        is_same_content = any(entry.fingerprint == file.fingerprint for entry in entries)
        reasons = [] if is_same_content else ["content changed"]
        reasons += self._changed_rules(entries[-1].rows_id)
        return ", ".join(reasons or [self._why_chosen(file.uri)])

    def _why_chosen(self, uri: str) -> str:
        is_unsurveyed = self.choices.of(uri) == UNSURVEYED
        return "its documents are to be chosen" if is_unsurveyed else "other documents are chosen"

    def _changed_rules(self, old_id: str) -> list[str]:
        if old_id == rows_id(self.rules):
            return []
        old = self.table.rules.get(old_id)
        if old is None:
            return [SOME_RULE]
        return [why for name, why in CHANGED_RULES.items() if old.get(name) != self.rules[name]]

    def _left_the_source(self) -> dict[str, list[str]]:
        """URIs with rows that the source does not name any more, by the fingerprint they had.

        The ledger is believed only where the file key confirms it.
        """
        uris: dict[str, list[str]] = defaultdict(list)
        for uri in sorted(self.table.versions.keys() - self.files.keys() - set(self.unreadable)):
            for key in self.table.versions[uri]:
                entry = self.table.entries.get(key)
                if entry is None:
                    continue
                file = SourceFile(uri, entry.fingerprint, 0)
                if file_key(file, entry.rows_id, entry.choice) == key:
                    uris[entry.fingerprint].append(uri)
                    break
        return uris

    def _moved(self, file: SourceFile, key: str, old: str) -> PlannedFile:
        rows_by_key = self.table.versions[old]
        old_rules = sorted({entry.rows_id for entry in self.table.made_of(rows_by_key)})
        changed = [why for old_id in old_rules for why in self._changed_rules(old_id)]
        why, is_again = ", ".join([f"moved from {old}", *changed]), key in self.table.entries
        old_keys = tuple(sorted(rows_by_key))
        return PlannedFile(file, key, "moved", why, old_keys, moved_from=old, again=is_again)


NO_REJECTS = ledger.KnownRejects(frozenset(), frozenset())


def _why_gone(version: FileVersion) -> str:
    if version.n_rows:
        return "it was in the table before, its rows are gone"
    return "its chunks got no vectors"
