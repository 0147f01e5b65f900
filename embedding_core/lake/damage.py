"""Find damage in a table from its metadata and a listing of the store; no row is read.

Five kinds: a data file that is not as long as the metadata says (Lance can lose the error of a
failed write, and a disk or a person can cut a file off), a data file that Lance cannot decode, an
index whose column or whose files are gone, a manifest that does not parse. No kind heals by
waiting, so each becomes a ``LakeError`` that names it. A sixth, a list of deleted rows that Lance
must not read, is looked for by audits alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata

from embedding_core.errors import LakeError
from embedding_core.lake.faults import plain, store_faults
from embedding_core.plurals import counted
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec

NOT_INDEXES = ("Protobuf", "whole buffer", "fields should be identical")
"""Words of Lance for a list of indexes that cannot be what was written."""


@dataclass(frozen=True, slots=True)
class WrongSize:
    """A data file that cannot be what was written."""

    fragment_id: int
    path: str
    """Name of the file in the table's ``data`` folder."""
    expected_bytes: int | None
    """Its size by the metadata; None where that does not say, and the file is missing."""
    size_bytes: int | None
    """Its size in the store; None for a missing file."""

    def __str__(self) -> str:
        size = (
            "is missing" if self.size_bytes is None else f"has {counted(self.size_bytes, 'byte')}"
        )
        expected = self.expected_bytes
        metadata = "" if expected is None else f", its metadata says {expected:,}"
        return f"data/{self.path} {size}{metadata}"


def wrong_sizes(
    table_uri: str, spec: StorageSpec, fragments: Iterable[FragmentMetadata]
) -> list[WrongSize]:
    """The data files of these fragments that are missing or of another size than they should be.

    Looks at one file after another; ``all_wrong_sizes`` lists the folder once.
    """

    def size_of(path: str) -> int | None:
        try:
            return int(fs.info(f"{table_uri}/data/{path}")["size"])
        except FileNotFoundError:
            return None

    if not (files := list(_data_files(fragments))):
        return []
    fs = storage.filesystem(table_uri, spec)
    with store_faults(f"looking for data files of {table_uri}"):
        return [
            WrongSize(fragment_id, path, expected, size)
            for fragment_id, path, expected in files
            if _differs(expected, size := size_of(path))
        ]


def all_wrong_sizes(
    table_uri: str, spec: StorageSpec, fragments: Iterable[FragmentMetadata]
) -> list[WrongSize]:
    """``wrong_sizes`` for a whole table: one listing, however many files."""
    folder = storage.join(table_uri, "data")
    with store_faults(f"listing data files of {table_uri}"):
        sizes = {
            file.uri.rpartition("/data/")[2]: file.size_bytes
            for file in storage.files_below(folder, spec)
        }
    return [
        WrongSize(fragment_id, path, expected, sizes.get(path))
        for fragment_id, path, expected in _data_files(fragments)
        if _differs(expected, sizes.get(path))
    ]


def wrong_deletions(table_uri: str, spec: StorageSpec, fragment: FragmentMetadata) -> str | None:
    """What is wrong with the file that lists the deleted rows of a fragment; None when nothing is.

    Lance believes the lengths that such a file names, and ends the process where there is not so
    much memory: a fragment with a wrong one must not be read. Its bitmaps of many rows name none.
    """
    deletions = fragment.deletion_file
    if deletions is None or deletions.file_type != "array":
        return None
    path = str(deletions.path(fragment.id))
    with store_faults(f"reading {path} of {table_uri}"):
        try:
            content = storage.read_bytes(storage.join(table_uri, path), spec)
        except FileNotFoundError:
            return f"{path} is missing"
    try:
        rows = pa.ipc.open_file(content).read_all()
        rows.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        return f"{path} cannot be read: {plain(error)}"
    if rows.num_rows != deletions.num_deleted_rows:
        n_rows = counted(rows.num_rows, "row")
        return f"{path} has {n_rows}, the metadata says {deletions.num_deleted_rows:,}"
    return None


def indexes_of(dataset: lance.LanceDataset) -> list[Any]:
    """Lance's description of each index. Raises ``LakeError`` when their list does not parse."""
    try:
        return list(dataset.describe_indices())
    except (OSError, RuntimeError) as error:
        if not any(words in str(error) for words in NOT_INDEXES):
            raise
        raise DamagedManifest(dataset.uri, dataset.version, plain(error)) from error


def index_bytes(table_uri: str, spec: StorageSpec) -> Mapping[str, int]:
    """Bytes of all files of each index part, by the part's id."""
    sizes: dict[str, int] = defaultdict(int)
    for file in storage.files_below(storage.join(table_uri, "_indices"), spec):
        part_id = file.uri.rpartition("/_indices/")[2].partition("/")[0]
        sizes[part_id] += file.size_bytes
    return sizes


def wrong_index_size(index: Any, sizes: Mapping[str, int]) -> str | None:
    """Which part of an index is not there as it was written; None when all are."""
    for segment in index.segments:
        size, expected = sizes.get(str(segment.uuid)), segment.size_bytes
        if size is None:
            return f"its files in _indices/{segment.uuid} are missing"
        if expected is not None and size != expected:
            return (
                f"_indices/{segment.uuid} has {counted(size, 'byte')}, its metadata says "
                f"{expected:,}"
            )
    return None


def homeless_indexes(dataset: lance.LanceDataset) -> tuple[str, ...]:
    """Names of the indexes whose column is gone: with one, Lance refuses every filter."""
    column_ids = {field.id() for field in dataset.lance_schema.fields()}
    return tuple(
        index.name for index in indexes_of(dataset) if not column_ids.issuperset(index.fields)
    )


class DamagedManifest(LakeError):
    """A version's manifest cannot be what was written."""

    def __init__(self, table_uri: str, version: object, why: str) -> None:
        super().__init__(
            f"the manifest of version {version} of {table_uri} is damaged ({why}); put that file "
            "in _versions back if there is a copy, else have it put aside: the table is then as it "
            "was before",
            action="repair",
        )
        self.why = why


def unreadable_rows(why: str) -> LakeError:
    """The error for a file of rows or of an index, of the right size, that Lance cannot decode."""
    return LakeError(f"a data file or an index is not what was written ({why})", action="repair")


def damage_of(table_uri: str, spec: StorageSpec, dataset: lance.LanceDataset) -> LakeError | None:
    """The error that names what is damaged in a version of a table; None when nothing is.

    For use after a failed read: it lists the table's data files and those of its indexes.
    """
    if homeless := homeless_indexes(dataset):
        return LakeError(
            f"the column of index {', '.join(homeless)} is gone, and Lance refuses every filter "
            "with such an index; maintenance drops it",
            action="maintain",
        )
    fragments = (fragment.metadata for fragment in dataset.get_fragments())
    wrong = all_wrong_sizes(table_uri, spec, fragments)
    if wrong:
        more = f", and {counted(len(wrong) - 1, 'file')} more" if len(wrong) > 1 else ""
        return LakeError(f"{wrong[0]}{more}: what was in it is lost", action="repair")
    sizes = index_bytes(table_uri, spec)
    for index in indexes_of(dataset):
        if (why := wrong_index_size(index, sizes)) is not None:
            return LakeError(
                f"index {index.name} cannot be used: {why}; maintenance makes it again",
                action="maintain",
            )
    return None


def _data_files(fragments: Iterable[FragmentMetadata]) -> Iterator[tuple[int, str, int | None]]:
    """(fragment id, file name, size by the metadata) of every data file."""
    for fragment in fragments:
        for file in fragment.files:
            yield fragment.id, file.path, file.file_size_bytes


def _differs(expected: int | None, size: int | None) -> bool:
    return size is None or (expected is not None and size != expected)
