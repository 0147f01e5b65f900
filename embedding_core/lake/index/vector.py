"""The vector index of a space: chosen, tuned to a recall, extended, trained again.

How it must be queried is measured (``lake.index.tuning``) and stored in the table, so every query
uses it. Building and extending commit new versions of the table; readers go on with the old one.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import lance

from embedding_core.errors import LakeError, Transient
from embedding_core.gpus import n_nvidia_gpus
from embedding_core.lake import schema
from embedding_core.lake.faults import store_faults
from embedding_core.lake.index.broken import drop_homeless_indexes, drop_index
from embedding_core.lake.index.scalar import Coverage, coverage, extend
from embedding_core.lake.index.tuning import TOP_K, Sample, Setting, tune
from embedding_core.lake.lock import locked
from embedding_core.lake.scans import count_vectors, have_vectors
from embedding_core.lake.snapshot import INDEX_KEY, Snapshot
from embedding_core.lake.table import Table
from embedding_core.recipe import IndexKind, IndexSpec

log = logging.getLogger(__name__)

ROWS_PER_PARTITION = 4_096
LARGEST_SQ_BYTES = 16 * 2**30
"""IVF_SQ keeps one byte per dimension of every row; above this, one bit."""
DIMENSIONS_PER_PQ_CODE = 8
FEWEST_VECTORS = 256
"""With less there is nothing to learn partitions from."""
NEW_SHARE_BEFORE_MEASURING = 0.1
"""New rows, of those there were, before the recall is measured again: that reads every vector once.
"""
MOST_EXTRA_PROBES = 2
"""Partitions to look into, against what was enough before, until training anew is better."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """The vector index as it now is."""

    name: str
    """``space_<first digits of the space_id>``: an index follows its column through renames."""
    kind: IndexKind
    rows_at_training: int
    """Rows the partitions were learned from."""
    rows_at_tuning: int
    """Rows when the recall was measured."""
    partitions: int
    nprobes: int
    """Partitions a query looks into."""
    refine_factor: int
    """Candidates per result that are ranked again by their full vectors."""
    recall: float
    """Measured recall@10 against exact search with these settings."""
    milliseconds: float
    """Median time of a query when that was measured, index in memory."""
    newest_fragment: int = -1
    """Id of the newest fragment when that was measured: rows of later ones are new, also where they
    took the place of others."""


def stored_index(table: Table, column: str = schema.VECTOR) -> IndexReport | None:
    """What the table says of a column's index; None when that is missing, and, with a warning, when
    it does not say what it must: the index is then tuned anew."""
    settings = table.index_settings(column)
    if not settings:
        return None
    try:
        return IndexReport(**settings)
    except TypeError as error:
        log.warning("the stored settings of the index on %s of %s are not whole, so they are found "
                    "anew: %s", column, table.uri, error)  # fmt: skip
        return None


def training_is_due(table: Table, spec: IndexSpec, column: str = schema.VECTOR) -> bool:
    """Whether ``refresh_vector_index`` would train a column's index now: its one step that takes
    minutes and gigabytes, and may have use for a GPU."""
    with store_faults(f"looking at the index of {table.uri}"):
        dataset = table.dataset()
        found = coverage(dataset).get(schema.index_name(table.field(column, dataset.schema)))
        known, n_rows = stored_index(table, column), dataset.count_rows()
        if n_rows < max(_least_rows(found, spec), FEWEST_VECTORS):
            return False
        return known is None or found is None or _is_outdated(known, found, n_rows, spec)


def refresh_vector_index(
    table: Table, spec: IndexSpec, merge: bool = False, column: str = schema.VECTOR
) -> IndexReport | None:
    """Build, extend or rebuild a column's index; None while the table is too small for one.

    It is rebuilt when the rows have doubled since it was trained, when its recall fell so far that
    queries would have to look into twice the partitions, when the recipe names another kind, and
    when someone put another index in its place. Its recall is measured again when the rows have
    grown by a tenth. Other indexes on the column are dropped: queries might use either. ``merge``:
    see ``indexing.extend``. Raises ``LakeError`` when no setting reaches the recall asked for, and
    ``Transient`` when the column was switched or retired meanwhile.
    """
    with store_faults(f"indexing {table.uri}"), _homeless_dropped(table):
        dataset = table.dataset()
        name = schema.index_name(table.field(column, dataset.schema))
        found, known = _only_ours(table, column, name), stored_index(table, column)
        n_rows = dataset.count_rows()
        if n_rows < _least_rows(found, spec):
            if found is not None:
                drop_index(table, name)
            return None
        if known is None or found is None or _is_outdated(known, found, n_rows, spec):
            return _build(table, column, name, spec, known)
        uncovered = found.uncovered  # Lance cannot extend an index by rows without vectors
        if not uncovered or have_vectors(Snapshot(table, dataset), column, uncovered):
            extend(table, {name: found}, merge)
        n_new = _rows_after(dataset, known.newest_fragment)
        few_new = n_new < NEW_SHARE_BEFORE_MEASURING * known.rows_at_tuning
        if few_new and known.recall >= spec.target_recall:
            return known
        return _measured_again(table, column, known, spec)


@contextmanager
def _homeless_dropped(table: Table) -> Iterator[None]:
    """Leave no index behind whose column was retired: Lance commits one all the same."""
    try:
        yield
    finally:
        drop_homeless_indexes(table)


def _newest(table: Table, column: str, name: str) -> lance.LanceDataset:
    """The newest version, in which ``column`` must be of the space that index ``name`` is for.

    Raises ``Transient`` when it is not: it was renamed by a switch of spaces, or dropped.
    """
    dataset = table.dataset()
    names = dataset.schema.names
    if column not in names or schema.index_name(dataset.schema.field(column)) != name:
        raise Transient(
            f"column {column!r} of {table.uri} was switched or retired while its index {name} was "
            "being made; run the same command again"
        )
    return dataset


def _only_ours(table: Table, column: str, name: str) -> Coverage | None:
    """The index of this name, if it is there; any other on the column is dropped."""
    found = coverage(table.dataset())
    for other, one in found.items():
        if one.columns == (column,) and other != name:
            table.dataset().drop_index(other)
    return found.get(name)


def _least_rows(found: Coverage | None, spec: IndexSpec) -> float:
    """Rows from which on there is an index; one that is there stays for longer."""
    return spec.min_rows if found is None else spec.min_rows / 2


def _is_outdated(known: IndexReport, found: Coverage, n_rows: int, spec: IndexSpec) -> bool:
    return (
        found.kind != known.kind
        or spec.kind not in ("auto", known.kind)
        or n_rows >= 2 * known.rows_at_training
    )


def _rows_after(dataset: lance.LanceDataset, newest_fragment: int) -> int:
    """Rows that came later, or that compaction wrote anew."""
    later = (one for one in dataset.get_fragments() if one.fragment_id > newest_fragment)
    return sum(one.count_rows() for one in later)


def _measured_again(
    table: Table, column: str, known: IndexReport, spec: IndexSpec
) -> IndexReport | None:
    """Keep the settings, or find others, or train anew when too many partitions were needed."""
    dataset = _newest(table, column, known.name)
    sample = Sample(Snapshot(table, dataset), column)
    setting = sample.measure(known.nprobes, known.refine_factor)
    if setting.recall < spec.target_recall:
        setting = tune(sample, known.partitions, spec.target_recall)
        too_slow = setting.nprobes > MOST_EXTRA_PROBES * known.nprobes
        if too_slow or not setting.reaches(spec.target_recall):
            return _build(table, column, known.name, spec, known)
    return _keep(table, dataset, known, setting)


def _build(
    table: Table, column: str, name: str, spec: IndexSpec, known: IndexReport | None
) -> IndexReport | None:
    """``_trained``, under the table's ``index`` lock: no space is switched or retired meanwhile.

    Waits for as long as another run trains; when that changed what was ``known`` of this index, it
    is trained already.
    """
    with locked(table, f"the training of index {name}", math.inf, kind="index"):
        stored = stored_index(table, column)
        return _trained(table, column, name, spec) if stored == known else stored


def _trained(table: Table, column: str, name: str, spec: IndexSpec) -> IndexReport | None:
    """Train and tune; a kind chosen for its size that does not reach the target gives way."""
    dataset = _newest(table, column, name)
    n_rows = dataset.count_rows()
    n_vectors = count_vectors(Snapshot(table, dataset), column)
    if n_vectors < FEWEST_VECTORS:
        return None
    dim = schema.list_type(dataset.schema.field(column)).list_size
    partitions = math.ceil(n_vectors / ROWS_PER_PARTITION)
    reached = 0.0
    for kind in _kinds(spec.kind, n_vectors, dim):
        options = {**_options(kind, dim), "num_partitions": partitions, "name": name}
        _train(dataset, column, kind, options)
        dataset = _newest(table, column, name)
        setting = tune(Sample(Snapshot(table, dataset), column), partitions, spec.target_recall)
        if setting.reaches(spec.target_recall):
            new = IndexReport(name, kind, n_rows, n_rows, partitions, 0, 0, 0.0, 0.0)
            return _keep(table, dataset, new, setting)
        reached = max(reached, setting.recall)
    drop_index(table, name)
    raise LakeError(
        f"the vector index ({kind}) reaches recall@{TOP_K} {reached:.3f} at most, not surely "
        f"the recipe's index.target_recall {spec.target_recall}; lower that, choose another "
        "index.kind, or raise index.min_rows to search exactly"
    )


def _train(
    dataset: lance.LanceDataset, column: str, kind: IndexKind, options: Mapping[str, Any]
) -> None:
    """On the GPU where Lance can: that is IVF_PQ, and the others are learned in seconds."""
    given: dict[str, Any] = {"metric": "cosine", "replace": True, **options}
    if kind == "IVF_PQ" and n_nvidia_gpus():
        try:
            dataset.create_index(column, kind, accelerator="cuda", **given)
            return
        # A driver, torch or Lance that does not fit: the CPU does too.
        except Exception as error:  # noqa: BLE001
            log.warning("training %s on the GPU failed, now on the CPU: %s", kind, error)
    dataset.create_index(column, kind, **given)


def _kinds(wanted: str, n_vectors: int, dim: int) -> tuple[IndexKind, ...]:
    """Kinds to try, in order."""
    if wanted != "auto":
        return (wanted,)  # type: ignore[return-value]  # the recipe's field has no other values
    if n_vectors * dim > LARGEST_SQ_BYTES and dim % 8 == 0:
        return ("IVF_RQ", "IVF_SQ")
    return ("IVF_SQ",)


def _options(kind: IndexKind, dim: int) -> Mapping[str, int]:
    """What Lance must be told beyond the kind. Raises ``LakeError`` for dimensions it cannot do."""
    if kind == "IVF_RQ":
        if dim % 8:
            raise LakeError(
                f"IVF_RQ needs a dimension that 8 divides, and the vectors have {dim}; choose "
                "another index.kind"
            )
        return {"num_bits": 1}
    if kind == "IVF_PQ":
        most = max(1, dim // DIMENSIONS_PER_PQ_CODE)
        return {"num_sub_vectors": max(one for one in range(1, most + 1) if dim % one == 0)}
    return {}


def _keep(
    table: Table, dataset: lance.LanceDataset, index: IndexReport, setting: Setting
) -> IndexReport:
    """Store how the index is to be queried, as measured on ``dataset``, a version of the table."""
    tuned = replace(
        index,
        rows_at_tuning=dataset.count_rows(),
        nprobes=setting.nprobes,
        refine_factor=setting.refine_factor,
        recall=setting.recall,
        milliseconds=setting.milliseconds,
        newest_fragment=max(one.fragment_id for one in dataset.get_fragments()),
    )
    table.dataset().update_metadata({INDEX_KEY + index.name: json.dumps(asdict(tuned))})
    return tuned
