"""The vector index of a space: chosen, tuned to a recall, extended, trained again.

How to query it is measured (``lake.index.tuning``) and stored in the table, so every query uses it.
Building and extending commit new versions of the table; readers go on with the old version.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import lance

from embedding_core.errors import LakeError, Locked, Transient, words
from embedding_core.gpus import n_nvidia_gpus
from embedding_core.lake import schema
from embedding_core.lake.faults import store_faults
from embedding_core.lake.index.broken import drop_homeless_indexes, drop_index
from embedding_core.lake.index.scalar import Coverage, coverage, extend, is_to_extend
from embedding_core.lake.index.tuning import TOP_K, Sample, Setting, tune
from embedding_core.lake.lock import locked
from embedding_core.lake.scans import count_vectors, have_vectors
from embedding_core.lake.snapshot import INDEX_KEY, Snapshot, opened
from embedding_core.lake.table import Table
from embedding_core.recipe import IndexKind, IndexSpec
from embedding_core.sealed import sealed

log = logging.getLogger(__name__)

ROWS_PER_PARTITION = 4_096
LARGEST_SQ_BYTES = 16 * 2**30
"""IVF_SQ keeps one byte per dimension of every row; above this, one bit."""
DIMENSIONS_PER_PQ_CODE = 8
FEWEST_VECTORS = 256
"""Fewer are not enough to learn partitions from."""
NEW_SHARE_BEFORE_MEASURING = 0.1
"""Share of new rows from which on the recall is measured again: that reads every vector once."""
MOST_EXTRA_PROBES = 2
"""How many times the partitions that were enough before; with more, training again is better."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """A vector index and how to query it."""

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
    """Id of the newest fragment when that was measured. Rows of later fragments are new, even where
    they replaced others."""


def stored_index(snapshot: Snapshot, column: str = schema.VECTOR) -> IndexReport | None:
    """What the table says of a column's index; None when it says nothing.

    None, with a warning, when the settings are not whole: the index is then tuned again.
    """
    settings = snapshot.index_settings(column)
    if not settings:
        return None
    try:
        return IndexReport(**settings)
    except TypeError as error:
        log.warning("the stored settings of the index on %s of %s are not whole, so they are found "
                    "again: %s", column, snapshot.table.uri, error)  # fmt: skip
        return None


def training_is_due(snapshot: Snapshot, spec: IndexSpec, column: str = schema.VECTOR) -> bool:
    """Whether ``refresh_vector_index`` would train a column's index now.

    That is its one step that takes minutes and gigabytes, and may have use for a GPU.
    """
    with store_faults(f"looking at the index of {snapshot.table.uri}"):
        name = schema.index_name(snapshot.field(column))
        covered, report = coverage(snapshot.dataset).get(name), stored_index(snapshot, column)
        n_rows = snapshot.n_rows
        if n_rows < max(_least_rows(covered, spec), FEWEST_VECTORS):
            return False
        return report is None or covered is None or _is_outdated(report, covered, n_rows, spec)


def refresh_vector_index(
    table: Table | Snapshot,
    spec: IndexSpec,
    merge: bool = False,
    column: str = schema.VECTOR,
) -> IndexReport | None:
    """Build, extend or rebuild a column's index; None while the table is too small for one.

    It is rebuilt when the rows have doubled since it was trained, when its recall fell so far that
    queries would have to look into twice the partitions, when the recipe names another kind, and
    when someone put another index in its place. Its recall is measured again when the rows have
    grown by a tenth. Other indexes on the column are dropped: queries might use either. ``merge``:
    see ``index.scalar.extend``; new rows wait for the next run while another run trains an index.
    Raises ``LakeError`` when no setting reaches the recall asked for,
    and ``Transient`` when the column was switched or retired meanwhile.
    """
    snapshot = opened(table)
    with store_faults(f"indexing {snapshot.table.uri}"):
        try:
            return _refreshed(snapshot, spec, merge, column)
        finally:  # Lance commits an index even when its column was retired meanwhile
            drop_homeless_indexes(snapshot.newest())


def _refreshed(snapshot: Snapshot, spec: IndexSpec, merge: bool, column: str) -> IndexReport | None:
    # 1. One index per column: any other is dropped.
    name = schema.index_name(snapshot.field(column))
    covered = _only_ours(snapshot, column, name)
    report, n_rows = stored_index(snapshot, column), snapshot.n_rows
    # 2. No index on a small table: exact search is as fast.
    if n_rows < _least_rows(covered, spec):
        if covered is not None:
            drop_index(snapshot, name)
        return None
    # 3. Train where there is no index, or one that no longer fits the table or the recipe.
    if report is None or covered is None or _is_outdated(report, covered, n_rows, spec):
        return _build(snapshot.table, column, name, spec, report)
    # 4. Cover the new rows. Lance cannot extend an index by rows that have no vector.
    n_new = _rows_after(snapshot, report.newest_fragment)
    has_vectors = not covered.uncovered or have_vectors(snapshot, column, covered.uncovered)
    if has_vectors and is_to_extend(covered, merge):
        _extend(snapshot.table, column, name, covered, merge)
    # 5. Measure again when enough rows are new, or when the recall was short before.
    has_few_new = n_new < NEW_SHARE_BEFORE_MEASURING * report.rows_at_tuning
    if has_few_new and report.recall >= spec.target_recall:
        return report
    return _measured_again(snapshot.table, column, report, spec)


def _newest(table: Table, column: str, name: str) -> Snapshot:
    """The newest version, in which ``column`` must be of the space that index ``name`` is for.

    Raises ``Transient`` when it is not: it was renamed by a switch of spaces, or dropped.
    """
    snapshot = table.open()
    names = snapshot.schema.names
    if column not in names or schema.index_name(snapshot.field(column)) != name:
        raise Transient(
            f"column {column!r} of {table.uri} was switched or retired while its index {name} was "
            "being made; run the same command again"
        )
    return snapshot


def _only_ours(snapshot: Snapshot, column: str, name: str) -> Coverage | None:
    """The index of this name, if it is there; any other on the column is dropped."""
    indexes = coverage(snapshot.dataset)
    for other, index in indexes.items():
        if index.columns == (column,) and other != name:
            snapshot.dataset.drop_index(other)
    return indexes.get(name)


def _least_rows(covered: Coverage | None, spec: IndexSpec) -> float:
    """Rows from which on there is an index; an existing index stays down to half as many."""
    return spec.min_rows if covered is None else spec.min_rows / 2


def _is_outdated(report: IndexReport, covered: Coverage, n_rows: int, spec: IndexSpec) -> bool:
    return (
        covered.kind != report.kind
        or spec.kind not in ("auto", report.kind)
        or n_rows >= 2 * report.rows_at_training
    )


def _rows_after(snapshot: Snapshot, newest_fragment: int) -> int:
    """Rows that came later than a fragment, or that compaction rewrote since."""
    fragments = snapshot.dataset.get_fragments()
    return sum(
        fragment.count_rows() for fragment in fragments if fragment.fragment_id > newest_fragment
    )


def _extend(table: Table, column: str, name: str, covered: Coverage, merge: bool) -> None:
    """``index.scalar.extend`` under the table's ``index`` lock, as ``_build``.

    While another run trains, or spaces change, the new rows wait for the next run: a search
    compares rows that no index covers.
    """
    try:
        with locked(table, f"the extension of index {name}", 0, kind="index"):
            extend(_newest(table, column, name).dataset, {name: covered}, merge)
    except Locked as error:
        log.info("the next run lets index %s cover the new rows: %s", name, error)


def _measured_again(
    table: Table, column: str, report: IndexReport, spec: IndexSpec
) -> IndexReport | None:
    """Keep the settings, or choose others, or train again when those need too many partitions."""
    snapshot = _newest(table, column, report.name)
    sample = Sample(snapshot, column)
    setting = sample.measure(report.nprobes, report.refine_factor)
    if setting.recall < spec.target_recall:
        setting = tune(sample, report.partitions, spec.target_recall)
        too_slow = setting.nprobes > MOST_EXTRA_PROBES * report.nprobes
        if too_slow or not setting.reaches(spec.target_recall):
            return _build(table, column, report.name, spec, report)
    return _keep(snapshot, report, setting)


def _build(
    table: Table, column: str, name: str, spec: IndexSpec, before: IndexReport | None
) -> IndexReport | None:
    """``_trained``, under the table's ``index`` lock: no space is switched or retired meanwhile.

    Waits for as long as another run trains. When that run changed what the table says of the index
    (``before``), it has trained it already.
    """
    with locked(table, f"the training of index {name}", math.inf, kind="index"):
        stored = stored_index(table.open(), column)
        return _trained(table, column, name, spec) if stored == before else stored


def _trained(table: Table, column: str, name: str, spec: IndexSpec) -> IndexReport | None:
    """Train and tune. A kind chosen for its size gives way when it does not reach the target."""
    snapshot = _newest(table, column, name)
    n_rows, n_vectors = snapshot.n_rows, count_vectors(snapshot, column)
    if n_vectors < FEWEST_VECTORS:
        return None
    dim = schema.list_type(snapshot.field(column)).list_size
    partitions = math.ceil(n_vectors / ROWS_PER_PARTITION)
    reached = 0.0
    for kind in _kinds(spec.kind, n_vectors, dim):
        options = {**_options(kind, dim), "num_partitions": partitions, "name": name}
        _train(snapshot.dataset, column, kind, options)
        snapshot = _newest(table, column, name)
        setting = tune(Sample(snapshot, column), partitions, spec.target_recall)
        if setting.reaches(spec.target_recall):
            new = IndexReport(name, kind, n_rows, n_rows, partitions, 0, 0, 0.0, 0.0)
            return _keep(snapshot, new, setting)
        reached = max(reached, setting.recall)
    drop_index(snapshot, name)
    raise LakeError(
        f"the vector index ({kind}) reaches recall@{TOP_K} {reached:.3f} at most, not surely "
        f"the recipe's index.target_recall {spec.target_recall}; lower that, choose another "
        "index.kind, or raise index.min_rows to search exactly"
    )


def _train(
    dataset: lance.LanceDataset, column: str, kind: IndexKind, options: Mapping[str, Any]
) -> None:
    """Train an index: IVF_PQ on a GPU if there is one, the other kinds on the CPU in seconds."""
    settings: dict[str, Any] = {"metric": "cosine", "replace": True, **options}
    if kind == "IVF_PQ" and n_nvidia_gpus():
        try:
            dataset.create_index(column, kind, accelerator="cuda", **settings)
            return
        # A driver, torch or Lance that does not fit: the CPU does too.
        except Exception as error:  # noqa: BLE001
            log.warning("training %s on the GPU failed, now on the CPU: %s", kind, words(error))
    dataset.create_index(column, kind, **settings)


def _kinds(kind: str, n_vectors: int, dim: int) -> tuple[IndexKind, ...]:
    """Kinds to try, in order."""
    if kind != "auto":
        return (kind,)  # type: ignore[return-value]  # the recipe's field has no other values
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
        return {"num_sub_vectors": max(n for n in range(1, most + 1) if dim % n == 0)}
    return {}


def _keep(snapshot: Snapshot, index: IndexReport, setting: Setting) -> IndexReport:
    """Store how the index is to be queried, as measured on ``snapshot``."""
    fragments = snapshot.dataset.get_fragments()
    tuned = replace(
        index,
        rows_at_tuning=snapshot.n_rows,
        nprobes=setting.nprobes,
        refine_factor=setting.refine_factor,
        recall=setting.recall,
        milliseconds=setting.milliseconds,
        newest_fragment=max(fragment.fragment_id for fragment in fragments),
    )
    snapshot.dataset.update_metadata({INDEX_KEY + index.name: json.dumps(sealed(asdict(tuned)))})
    return tuned
