"""Promote, roll back and retire spaces, and record those refused: one metadata commit each.

Two columns swap their names, together with what LanceDB needs to know of them and a record of the
release, in one version of the table. A reader has the old space or the new one, never both. Knows
neither texts nor models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa

from embedding_core.errors import LakeError, Unfilled
from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake import schema
from embedding_core.lake.embedding_function import METADATA_KEY, function_metadata
from embedding_core.lake.evolution import commit_schema
from embedding_core.lake.faults import tried_again
from embedding_core.lake.lock import locked
from embedding_core.lake.snapshot import INDEX_KEY, Snapshot
from embedding_core.lake.spaces.vector_columns import field_of, missing_rows, model_of
from embedding_core.lake.table import Table
from embedding_core.plurals import counted
from embedding_core.sealed import sealed, unsealed
from embedding_core.store.untrusted.json_text import read_json

RECORDS_KEY = b"embedlake:releases"
"""Schema metadata: the records, oldest first, as JSON."""
TRAINING_WAIT_SECONDS = 60.0
"""A change of spaces waits this long for the training of an index, unless told otherwise."""
RECORDS_KEPT = 200
"""Changes that are remembered: four years of a release a week, 120 kB, which every opening of the
table reads."""
REFUSALS_KEPT = 50
"""Refusals that are remembered; they push out no change, which ``rollback`` may need."""

Action = Literal["promote", "rollback", "retire", "refuse"]


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What the release gate said of a space, in short."""

    verdict: str
    """``yes`` or ``no``; a promote after a no was forced."""
    queries: int
    queries_kind: str
    """``labelled`` or ``known-item``."""
    sampled_share: float | None
    """Share of the rows that were judged; None: all of them."""
    old_ndcg: float
    """Mean nDCG@10 of the space that served."""
    new_ndcg: float
    difference: float
    """New less old, as the mean over queries; ``low`` to ``high`` is its 95 % interval."""
    low: float
    high: float
    failed: Mapping[str, str]
    """Checks that failed, each with a sentence on what it found."""


@dataclass(frozen=True, slots=True)
class Release:
    """One change of the table's spaces, or one that the gate refused."""

    action: Action
    at: str
    """ISO 8601, UTC."""
    by: str
    """Who asked for it."""
    run_id: str | None
    """The run that did it; None when a person did it by hand."""
    from_space: str
    """``space_id`` of the space that left service or was retired; of a refusal, that of the space
    that stayed in service."""
    from_model: str
    to_space: str | None
    """``space_id`` of the space in service since, or refused; None when a column was retired."""
    to_model: str | None
    gate: GateAnswer | None = None
    """What the gate said; None when nobody asked it."""


def releases(snapshot: Snapshot) -> tuple[Release, ...]:
    """The last 200 changes of the table's spaces and the last 50 refusals, newest first."""
    return tuple(reversed(_records(snapshot.schema)))


def promote(
    table: Table,
    column: str,
    by: str,
    run_id: str | None = None,
    wait_seconds: float = TRAINING_WAIT_SECONDS,
    gate: GateAnswer | None = None,
    check: Callable[[], None] = lambda: None,
) -> Release:
    """Put a built column in service; the column that served stays beside it as ``vector__…``.

    ``gate`` is kept with the record of the release. ``check`` is called before each attempt; what
    it raises ends the promote, as when a build has lost its lock.

    Raises ``LakeError``, and changes nothing, when there is no such column and when the table has
    no rows, ``Unfilled`` while a row lacks the new vector, ``Locked`` when the training of an index
    goes on for longer than ``wait_seconds``. After a commit of another writer in between, all is
    checked again and the switch tried again.
    """

    def switch(snapshot: Snapshot) -> _Change:
        check()
        field = _other(snapshot, column)
        _check_complete(snapshot, field)
        change = _switched(snapshot, field, "promote", complete=True)
        return replace(change, gate=gate)

    return _commit(table, by, run_id, wait_seconds, switch)


def rollback(
    table: Table,
    by: str,
    now: bool = False,
    wait_seconds: float = TRAINING_WAIT_SECONDS,
) -> Release:
    """Switch back to the space that served before the last promote.

    Raises ``LakeError``, and changes nothing, when there is no such space, and while a row lacks
    its vector in that space, because it came since. With ``now`` a search misses such rows until
    they are filled (``missing_rows`` of the space in service lists them). ``wait_seconds``: see
    ``promote``.
    """

    def switch(snapshot: Snapshot) -> _Change:
        field = _previous(snapshot)
        if not now:
            _check_complete(snapshot, field)
        return _switched(snapshot, field, "rollback", complete=not now)

    return _commit(table, by, None, wait_seconds, switch)


def retire(
    table: Table,
    column: str,
    by: str,
    wait_seconds: float = TRAINING_WAIT_SECONDS,
) -> Release:
    """Drop a column that is not in service, and its index.

    Raises ``LakeError`` for the column in service and for a column that embedlake did not make.
    ``wait_seconds``: see ``promote``.
    """

    def drop(snapshot: Snapshot) -> _Change:
        field = _other(snapshot, column)
        key = INDEX_KEY + schema.index_name(field)
        if key in snapshot.dataset.metadata:
            snapshot.dataset.update_metadata({key: None})
        identifier, space = schema.space_of(field)
        kept = [other for other in snapshot.schema if other.name != column]
        new_schema = pa.schema(kept, metadata=snapshot.schema.metadata)
        return _Change("retire", new_schema, {}, (identifier, space.model), None)

    return _commit(table, by, None, wait_seconds, drop)


def refuse(
    table: Table, refused: tuple[str, str], by: str, run_id: str | None, gate: GateAnswer
) -> Release:
    """Record that the gate refused a space, ``space_id`` and model; changes nothing else.

    Waits for the training of an index however long: the record is of work that is done.
    """

    def record(snapshot: Snapshot) -> _Change:
        identifier, space = snapshot.space()
        serving = (identifier, space.model)
        return _Change("refuse", snapshot.schema, {}, serving, refused, gate)

    return _commit(table, by, run_id, math.inf, record)


def column_before(snapshot: Snapshot) -> str:
    """The column that ``rollback`` would put in service. Raises ``LakeError`` without one."""
    return str(_previous(snapshot).name)


def retire_left(
    table: Table, longer_than: timedelta, by: str, now: datetime | None = None
) -> list[Release]:
    """Retire every column that left service longer ago than this; ``now`` default: the clock.

    Not while a space is being built, which may fill one of them again, and not while an index is
    trained. Raises ``Locked`` then.
    """
    before = (now or datetime.now(UTC)) - longer_than
    hidden = [field for field in table.open().schema if schema.is_hidden(field)]
    left_at = {field.name: schema.Origin.of(field).served_until for field in hidden}
    old = [name for name, at in left_at.items() if at and datetime.fromisoformat(at) < before]
    if not old:
        return []
    with locked(table, by, 0, kind="build"):
        return [retire(table, name, by, wait_seconds=0) for name in old]


@dataclass(frozen=True, slots=True)
class _Change:
    """What a commit will do to one version of the table."""

    action: Action
    new_schema: pa.Schema
    renamed: dict[str, str]
    """The old name of each column that gets a new name."""
    old_space: tuple[str, str]
    """``space_id`` and model of the space that leaves service, is retired, or stays."""
    new_space: tuple[str, str] | None
    """``space_id`` and model of the space that enters service, or is refused."""
    gate: GateAnswer | None = None


def _commit(
    table: Table,
    by: str,
    run_id: str | None,
    wait_seconds: float,
    decide: Callable[[Snapshot], _Change],
) -> Release:
    """Decide on the newest version and commit, again for as long as other writers come between.

    Not while a vector index is trained: Lance would commit an index on a column that is gone. A
    change that slept while another took its lock is not tried again: it would undo what was done
    since.
    """
    at = datetime.now(UTC).isoformat(timespec="microseconds")

    def attempt_once(attempt: int) -> Release:
        snapshot = table.open()
        records = _records(snapshot.schema)
        if attempt > 1 and records and (records[-1].at, records[-1].by) == (at, by):
            return records[-1]  # the reply of an attempt was lost
        index_lock.check()  # what is committed since conflicts
        change = decide(snapshot)
        to_space, to_model = change.new_space or (None, None)
        spaces = (*change.old_space, to_space, to_model)
        new = Release(change.action, at, by, run_id, *spaces, change.gate)
        kept = [sealed(asdict(record)) for record in _kept([*records, new])]
        metadata = {**(change.new_schema.metadata or {}), RECORDS_KEY: json.dumps(kept).encode()}
        new_schema = change.new_schema.with_metadata(metadata)
        commit_schema(snapshot.dataset, new_schema, table.lake.options, change.renamed)
        return new

    with locked(table, by, wait_seconds, kind="index") as index_lock:
        return tried_again(f"change the spaces of {table.uri}", attempt_once)


def _switched(snapshot: Snapshot, field: pa.Field, action: Action, complete: bool) -> _Change:
    """The schema with ``field`` in service and the column that served under its hidden name.

    ``complete``: every row has a vector in ``field``.
    """
    serving = snapshot.field(schema.VECTOR)
    (old_id, old), (new_id, new) = schema.space_of(serving), schema.space_of(field)
    hidden = _left_service(snapshot, serving, schema.hidden_name(old_id))
    fields = {schema.VECTOR: hidden, field.name: _enters_service(field, complete)}
    model = model_of(snapshot.dataset, field.name)
    function = function_metadata(model, new, "text", schema.VECTOR)
    new_schema = pa.schema(
        [fields.get(other.name, other) for other in snapshot.schema],
        metadata={**(snapshot.schema.metadata or {}), METADATA_KEY: function},
    )
    renamed = {hidden.name: schema.VECTOR, schema.VECTOR: field.name}
    return _Change(action, new_schema, renamed, (old_id, old.model), (new_id, new.model))


def _left_service(snapshot: Snapshot, serving: pa.Field, name: str) -> pa.Field:
    origin = schema.Origin.of(serving)
    complete_below = origin.complete_below
    if complete_below is None:  # every row until now has its vector, later rows will not
        fragments = snapshot.dataset.get_fragments()
        complete_below = 1 + max((fragment.fragment_id for fragment in fragments), default=-1)
    left = replace(
        origin,
        model=model_of(snapshot.dataset, schema.VECTOR).model_dump(exclude={"over_length"}),
        served_until=datetime.now(UTC).isoformat(timespec="seconds"),
        complete_below=complete_below,
    )
    return schema.hidden(left.on(serving), name)


def _enters_service(field: pa.Field, complete: bool) -> pa.Field:
    origin = schema.Origin.of(field)
    complete_below = None if complete else origin.complete_below
    serves = replace(origin, served_until=None, complete_below=complete_below)
    return schema.as_served(serves.on(field))


def _other(snapshot: Snapshot, column: str) -> pa.Field:
    """A vector column that is not in service."""
    field = snapshot.field(column)
    if column == schema.VECTOR:
        identifier, space = schema.space_of(field)
        raise LakeError(
            f"column {column!r} is in service (space {identifier[:SHOWN_DIGITS]}, {space.model}); "
            f"name one of the others: {_others(snapshot)}"
        )
    if not schema.is_hidden(field):
        raise LakeError(
            f"column {column!r} holds no vectors of a space; name one of: {_others(snapshot)}"
        )
    return field


def _others(snapshot: Snapshot) -> str:
    names = [field.name for field in snapshot.schema if schema.is_hidden(field)]
    return ", ".join(names) or "there is none"


def _previous(snapshot: Snapshot) -> pa.Field:
    """The column that served before the column in service was promoted."""
    serving = snapshot.space()[0]
    replaced = [
        record.from_space
        for record in _records(snapshot.schema)
        if record.action == "promote" and record.to_space == serving
    ]
    where = f"table {snapshot.table.name!r} in {snapshot.table.lake.uri}"
    if not replaced:
        raise LakeError(
            f"there is nothing to go back to: the space in service of {where} took no other's "
            "place",
            action="releases",
        )
    field = field_of(snapshot.dataset, replaced[-1])
    if field is None:
        raise LakeError(
            f"there is nothing to go back to: space {replaced[-1][:SHOWN_DIGITS]}, which {where} "
            "had before, was retired; build it again with its model and promote it"
        )
    return field


def _check_complete(snapshot: Snapshot, field: pa.Field) -> None:
    table, n_rows = snapshot.table, snapshot.n_rows
    if not n_rows:
        raise LakeError(
            f"table {table.name!r} in {table.lake.uri} has no rows, so no space can be put in "
            "service",
            action="embed",
        )
    with table.faults("reading"):
        n_missing = sum(missing_rows(snapshot.dataset, schema.space_of(field)[0]).values())
    if n_missing:
        raise Unfilled(
            f"{n_missing:,} of {counted(n_rows, 'row')} of table {table.name!r} have no vector in "
            f"{field.name}, and a search would not find them; nothing was changed. Fill them with "
            "the column's model, then try again; texts without a vector are listed as rejects",
            action="reembed",
        )


def _kept(records: Sequence[Release]) -> list[Release]:
    """The records without the oldest changes and refusals beyond those that are remembered."""
    refusals = [n for n, record in enumerate(records) if record.action == "refuse"]
    changes = [n for n, record in enumerate(records) if record.action != "refuse"]
    remembered = [*changes[-RECORDS_KEPT:], *refusals[-REFUSALS_KEPT:]]
    return [records[n] for n in sorted(remembered)]


def _records(arrow_schema: pa.Schema) -> list[Release]:
    stored = (arrow_schema.metadata or {}).get(RECORDS_KEY)
    with schema.metadata_read(RECORDS_KEY):
        return [_release(record) for record in read_json(stored)] if stored else []


def _release(stored_record: Any) -> Release:
    record = unsealed(stored_record)
    stored = record.pop("gate", None)
    return Release(**record, gate=None if stored is None else GateAnswer(**stored))
