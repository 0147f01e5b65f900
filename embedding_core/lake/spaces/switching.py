"""Putting a space in service, going back, and letting one go: one metadata commit each.

The names of two columns change places, with what LanceDB needs to know of them and a record of the
release, in one version of the table. A reader has the old space or the new one, never both.
Knows neither texts nor models.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

import lance
import pyarrow as pa

from embedding_core.errors import LakeError, Unfilled
from embedding_core.identity import SHOWN_DIGITS
from embedding_core.lake import schema
from embedding_core.lake.embedding_function import METADATA_KEY, function_metadata
from embedding_core.lake.evolution import commit_schema
from embedding_core.lake.faults import store_faults, tried_again
from embedding_core.lake.lock import locked
from embedding_core.lake.snapshot import INDEX_KEY
from embedding_core.lake.spaces.vector_columns import field_of, missing_rows, model_of
from embedding_core.lake.table import Table

RECORDS_KEY = b"embedlake:releases"
"""Schema metadata: the records, oldest first, as JSON."""
TRAINING_WAIT_SECONDS = 60.0
"""A change of spaces waits this long for the training of an index, unless it is told otherwise."""
RECORDS_KEPT = 200
"""Four years of a release a week: 80 kB, which every opening of the table reads."""

Action = Literal["promote", "rollback", "retire"]


@dataclass(frozen=True, slots=True)
class Release:
    """One change of the table's spaces."""

    action: Action
    at: str
    """ISO 8601, UTC."""
    by: str
    """Who asked for it."""
    run_id: str | None
    """The run that did it; None when a person did it by hand."""
    from_space: str
    """``space_id`` of what left service, or was retired."""
    from_model: str
    to_space: str | None
    """``space_id`` of what is in service since; None when a column was retired."""
    to_model: str | None


def releases(table: Table) -> tuple[Release, ...]:
    """The last 200 changes of the table's spaces, newest first."""
    return tuple(reversed(_records(table.dataset())))


def promote(
    table: Table,
    column: str,
    by: str,
    run_id: str | None = None,
    wait_seconds: float = TRAINING_WAIT_SECONDS,
) -> Release:
    """Put a built column in service; the one that was stays beside it as ``vector__…``.

    Raises ``LakeError``, and changes nothing, when there is no such column and when the table has
    no rows, ``Unfilled`` while a row lacks the new vector, ``Locked`` when the training of an index
    goes on for longer than ``wait_seconds``. A commit of another writer in between is looked at and
    the switch tried again.
    """

    def switch(dataset: lance.LanceDataset) -> _Change:
        field = _other(table, dataset, column)
        _check_complete(table, dataset, field)
        return _switched(dataset, field, "promote", complete=True)

    return _commit(table, by, run_id, wait_seconds, switch)


def rollback(
    table: Table,
    by: str,
    run_id: str | None = None,
    now: bool = False,
    wait_seconds: float = TRAINING_WAIT_SECONDS,
) -> Release:
    """Put the space back in service that the one in service took the place of.

    Raises ``LakeError``, and changes nothing, when there is none, and while a row lacks its vector
    in that space: rows came since. With ``now`` such rows are not found by a search until they are
    filled (``missing_rows`` of the space in service tells which they are). ``wait_seconds``: see
    ``promote``.
    """

    def switch(dataset: lance.LanceDataset) -> _Change:
        field = _before(table, dataset)
        if not now:
            _check_complete(table, dataset, field)
        return _switched(dataset, field, "rollback", complete=not now)

    return _commit(table, by, run_id, wait_seconds, switch)


def retire(
    table: Table,
    column: str,
    by: str,
    run_id: str | None = None,
    wait_seconds: float = TRAINING_WAIT_SECONDS,
) -> Release:
    """Drop a column that is not in service, and its index.

    Raises ``LakeError`` for the column in service and for one that embedlake did not make.
    ``wait_seconds``: see ``promote``.
    """

    def drop(dataset: lance.LanceDataset) -> _Change:
        field = _other(table, dataset, column)
        key = INDEX_KEY + schema.index_name(field)
        if key in dataset.metadata:
            with store_faults(f"forgetting the index of {column}"):
                dataset.update_metadata({key: None})
        identifier, space = schema.space_of(field)
        left = pa.schema([one for one in dataset.schema if one.name != column])
        wanted = left.with_metadata(dataset.schema.metadata)
        return _Change("retire", wanted, {}, (identifier, space.model), None)

    return _commit(table, by, run_id, wait_seconds, drop)


def column_before(table: Table) -> str:
    """The column that ``rollback`` would put in service. Raises ``LakeError`` for none."""
    return str(_before(table, table.dataset()).name)


def retire_left(
    table: Table, longer_than: timedelta, by: str, now: datetime | None = None
) -> list[Release]:
    """Retire every column that left service longer ago than this; ``now`` default: the clock.

    Not while a space is being built, which may fill one of them again, and not while an index is
    trained. Raises ``Locked`` then.
    """
    before = (now or datetime.now(UTC)) - longer_than
    hidden = [one for one in table.dataset().schema if schema.is_hidden(one)]
    left = {one.name: schema.Origin.of(one).served_until for one in hidden}
    old = [name for name, at in left.items() if at and datetime.fromisoformat(at) < before]
    if not old:
        return []
    with locked(table, by, 0, kind="build"):
        return [retire(table, name, by, wait_seconds=0) for name in old]


@dataclass(frozen=True, slots=True)
class _Change:
    """What a commit will do to one version of the table."""

    action: Action
    wanted: pa.Schema
    renamed: dict[str, str]
    gone: tuple[str, str]
    """``space_id`` and model."""
    come: tuple[str, str] | None


def _commit(
    table: Table,
    by: str,
    run_id: str | None,
    wait_seconds: float,
    decide: Callable[[lance.LanceDataset], _Change],
) -> Release:
    """Decide on the newest version and commit, again for as long as other writers come between.

    Not while a vector index is trained: Lance would commit an index on a column that is gone.
    """
    at = datetime.now(UTC).isoformat(timespec="microseconds")

    def once(attempt: int) -> Release:
        dataset = table.dataset()
        records = _records(dataset)
        if attempt > 1 and records and (records[-1].at, records[-1].by) == (at, by):
            return records[-1]  # the reply of an attempt was lost
        change = decide(dataset)
        to_space, to_model = change.come or (None, None)
        record = Release(change.action, at, by, run_id, *change.gone, to_space, to_model)
        kept = [asdict(one) for one in (*records, record)][-RECORDS_KEPT:]
        metadata = {**(change.wanted.metadata or {}), RECORDS_KEY: json.dumps(kept).encode()}
        wanted = change.wanted.with_metadata(metadata)
        commit_schema(dataset, wanted, table.lake.options(), change.renamed)
        return record

    with locked(table, by, wait_seconds, kind="index"):
        return tried_again(f"change the spaces of {table.uri}", once)


def _switched(
    dataset: lance.LanceDataset, field: pa.Field, action: Action, complete: bool
) -> _Change:
    """The schema with ``field`` in service and what served under its hidden name.

    ``complete``: whether it is known that every row has a vector in ``field``.
    """
    serving = dataset.schema.field(schema.VECTOR)
    (gone_id, gone), (come_id, come) = schema.space_of(serving), schema.space_of(field)
    kept = _left_service(dataset, serving, schema.hidden_name(gone_id))
    taken = _enters_service(field, complete)
    places = {schema.VECTOR: kept, field.name: taken}
    function = function_metadata(model_of(dataset, field.name), come, "text", schema.VECTOR)
    metadata = {**(dataset.schema.metadata or {}), METADATA_KEY: function}
    wanted = pa.schema([places.get(one.name, one) for one in dataset.schema], metadata=metadata)
    renamed = {kept.name: schema.VECTOR, schema.VECTOR: field.name}
    return _Change(action, wanted, renamed, (gone_id, gone.model), (come_id, come.model))


def _left_service(dataset: lance.LanceDataset, serving: pa.Field, name: str) -> pa.Field:
    origin = schema.Origin.of(serving)
    complete_below = origin.complete_below
    if complete_below is None:  # every row until now has its vector, later ones will not
        complete_below = 1 + max((one.fragment_id for one in dataset.get_fragments()), default=-1)
    left = replace(
        origin,
        model=model_of(dataset, schema.VECTOR).model_dump(exclude={"over_length"}),
        served_until=datetime.now(UTC).isoformat(timespec="seconds"),
        complete_below=complete_below,
    )
    return schema.hidden(left.on(serving), name)


def _enters_service(field: pa.Field, complete: bool) -> pa.Field:
    origin = schema.Origin.of(field)
    complete_below = None if complete else origin.complete_below
    serves = replace(origin, served_until=None, complete_below=complete_below)
    return schema.shown(serves.on(field))


def _other(table: Table, dataset: lance.LanceDataset, column: str) -> pa.Field:
    """A vector column that is not in service."""
    field = table.field(column, dataset.schema)
    if column == schema.VECTOR:
        identifier, space = schema.space_of(field)
        raise LakeError(
            f"column {column!r} is in service (space {identifier[:SHOWN_DIGITS]}, {space.model}); "
            f"name one of the others: {_others(dataset)}"
        )
    if not schema.is_hidden(field):
        raise LakeError(
            f"column {column!r} holds no vectors of a space; name one of: {_others(dataset)}"
        )
    return field


def _others(dataset: lance.LanceDataset) -> str:
    return ", ".join(one.name for one in dataset.schema if schema.is_hidden(one)) or "there is none"


def _before(table: Table, dataset: lance.LanceDataset) -> pa.Field:
    """The column whose place the one in service took when it was promoted."""
    serving = schema.space_of(dataset.schema.field(schema.VECTOR))[0]
    taken = [
        one.from_space
        for one in _records(dataset)
        if one.action == "promote" and one.to_space == serving
    ]
    where = f"table {table.name!r} in {table.lake.uri}"
    if not taken:
        raise LakeError(
            f"there is nothing to go back to: the space in service of {where} took no other's "
            "place; see `embedlake releases`"
        )
    field = field_of(dataset, taken[-1])
    if field is None:
        raise LakeError(
            f"there is nothing to go back to: space {taken[-1][:SHOWN_DIGITS]}, which {where} had "
            "before, was retired; build it anew with its model and promote it"
        )
    return field


def _check_complete(table: Table, dataset: lance.LanceDataset, field: pa.Field) -> None:
    n_rows = dataset.count_rows()
    if not n_rows:
        raise LakeError(
            f"table {table.name!r} in {table.lake.uri} has no rows, so no space can be put in "
            "service; run `embedlake embed` first"
        )
    with table.faults("reading"):
        n_missing = sum(missing_rows(dataset, schema.space_of(field)[0]).values())
    if n_missing:
        raise Unfilled(
            f"{n_missing:,} of {n_rows:,} rows of table {table.name!r} have no vector in "
            f"{field.name}, and a search would not find them; nothing was changed. Fill them with "
            "`embedlake reembed RECIPE` and the column's model, then try again; rows whose text "
            "has no vector are in `embedlake status --rejects`"
        )


def _records(dataset: lance.LanceDataset) -> list[Release]:
    stored = (dataset.schema.metadata or {}).get(RECORDS_KEY)
    with schema.metadata_read(RECORDS_KEY):
        return [Release(**one) for one in json.loads(stored)] if stored else []
