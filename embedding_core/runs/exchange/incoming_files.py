"""Files with rows and vectors that somebody wrote: an export, or anybody's folder or file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa

from embedding_core.errors import EmbedlakeError, SetupError, UsageError, words
from embedding_core.exports.destination import Destination
from embedding_core.exports.exporter import KNOWN_EXPORTERS, Exporter
from embedding_core.exports.manifest import MANIFEST, ExportedFile, Manifest
from embedding_core.plurals import counted
from embedding_core.runs.exchange.claim import BEGUN
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec

HASHED_BYTES = 4 * 2**20
"""Bytes read at a time for a digest."""
TEXTS = ("text", "context")
STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
OWN_DIGESTS = ("text_hash", "chunk_id", "file_key")
"""Columns that are made again for files that others wrote: theirs may be digests of another kind,
and a vector would be taken for that of another text later."""
OF_WHOLE_FILES = ("file_key",)
"""What is made again for an export of some rows: a run would take their files for complete."""
UNREADABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    OSError,
    pa.ArrowException,
)
"""What comes of reading a file that is not of its format."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """What is to be imported, in the order of its rows."""

    folder: Destination
    format: str
    shards: tuple[tuple[str, ...], ...]
    """Paths of the files of each shard, in the order of the format's ``suffixes``."""
    manifest: Manifest | None
    """The manifest of an export; None for files that others wrote."""
    names: Mapping[str, str]
    """Names in the files, by those in the table, where they differ."""

    @property
    def exporter(self) -> Exporter:
        """What reads the shards."""
        return KNOWN_EXPORTERS.get(self.format)

    def batches(self, shard: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
        """The rows of a shard under the names of the table.

        Raises ``SetupError`` for files that cannot be read.
        """
        vector = self.names.get("vector", "vector")
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(self.folder.open(path)) for path in shard]
                for batch in self.exporter.read(files, vector):
                    yield self._named(batch)
        except EmbedlakeError:
            raise
        except UNREADABLE as error:
            raise SetupError(
                f"{' and '.join(shard)} in {self.folder.uri} cannot be read as {self.format} "
                f"({words(error)}); they are damaged or of another format: write them again, or "
                "name the format"
            ) from error

    def _named(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch under the names of the table."""
        ours = {theirs: name for name, theirs in self.names.items()}
        taken = [name for name in batch.schema.names if name in ours or name not in self.names]
        named = batch.select(taken).rename_columns([ours.get(name, name) for name in taken])
        kept = [name for name in named.schema.names if name not in self._made_again]
        columns = [_plain(name, named.column(name)) for name in kept]
        return pa.RecordBatch.from_arrays(columns, kept)

    @property
    def _made_again(self) -> tuple[str, ...]:
        """Columns that are not taken, whatever they hold."""
        if self.manifest is None:
            return OWN_DIGESTS
        return OF_WHOLE_FILES if self.manifest.spec.get("where") else ()


def _plain(name: str, column: pa.Array) -> pa.Array:
    """A column of texts as valid strings, whatever kind of strings or bytes they are."""
    kind = column.type
    if name in TEXTS or any(is_kind(kind) for is_kind in STRINGS):
        column = column.cast(pa.string())
        column.validate(full=True)  # a file may say that bytes are UTF-8 and they are not
    return column


def incoming(
    origin: str, spec: StorageSpec, format_name: str | None, names: Mapping[str, str]
) -> Incoming:
    """Look at what is to be imported: a folder, or a file by the end of its name.

    An export says itself what its columns are called; ``names`` go before that. Raises
    ``SetupError`` for an export that is not complete or whose files are not what its manifest
    says, ``UsageError`` where there is nothing to import.
    """
    if format_name is not None and format_name not in KNOWN_EXPORTERS.names():
        raise UsageError(f"no format {format_name!r}; use {', '.join(KNOWN_EXPORTERS.names())}")
    if storage.scheme_of(origin) not in storage.SCHEMES:
        raise UsageError(
            f"nothing is imported from {origin}: name a folder, a file or s3://bucket/prefix; "
            "download a dataset of a hub first, with `hf download`, and name its folder"
        )
    above, _, file_name = origin.rstrip("/").rpartition("/")
    for name in KNOWN_EXPORTERS.names():
        suffixes = KNOWN_EXPORTERS.get(name).suffixes
        if file_name.endswith(suffixes[0]):
            folder = Destination.parse(above or ".", spec)
            files = [file_name.removesuffix(suffixes[0]) + suffix for suffix in suffixes]
            return _by_suffix(folder, list(filter(folder.holds, files)), format_name, names)
    folder = Destination.parse(origin, spec)
    data = folder.read(MANIFEST)
    if data is not None:
        return _export(folder, Manifest.from_json(data, f"{folder.uri}/{MANIFEST}"), names)
    if folder.read(BEGUN) is not None:
        raise SetupError(
            f"the export at {folder.uri} is not complete; go on with it first", action="resume"
        )
    return _by_suffix(folder, sorted(folder.paths()), format_name, names)


def _export(folder: Destination, manifest: Manifest, names: Mapping[str, str]) -> Incoming:
    try:
        _check_files(folder, manifest)
        renamed = {str(column["column"]): str(column["name"]) for column in manifest.columns}
        paths = _shards_of(manifest)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise SetupError(
            f"{folder.uri}/{MANIFEST} is no manifest of an export ({type(error).__name__}: "
            f"{error}); name another folder, or export again"
        ) from error
    return Incoming(folder, manifest.spec["to"], paths, manifest, renamed | dict(names))


def _shards_of(manifest: Manifest) -> tuple[tuple[str, ...], ...]:
    """Files by shard, in the order of the format. Raises ``ValueError`` and its like for a manifest
    of no format, or of files that the format does not write."""
    if manifest.spec["to"] not in KNOWN_EXPORTERS.names():
        raise ValueError(f"it names no format, but {manifest.spec['to']!r}")
    shards: dict[int, list[str]] = {}
    suffixes = KNOWN_EXPORTERS.get(manifest.spec["to"]).suffixes
    files = [file for file in manifest.files if file.shard is not None]
    for file in sorted(files, key=lambda file: suffixes.index(_suffix(file.path))):
        shards.setdefault(int(file.shard or 0), []).append(file.path)
    return tuple(tuple(shards[number]) for number in sorted(shards))


def _check_files(folder: Destination, manifest: Manifest) -> None:
    """Raise ``SetupError`` when the rows of an export are not what was written."""
    sizes = folder.paths()
    for file in manifest.files:
        if file.shard is None:
            continue
        if file.path not in sizes:
            raise _damaged(folder, file, "is missing")
        if sizes[file.path] != file.size_bytes:
            raise _damaged(
                folder, file, f"has {counted(sizes[file.path], 'byte')}, not {file.size_bytes:,}"
            )
        if _sha256(folder, file.path) != file.sha256:
            raise _damaged(folder, file, "has another SHA-256 than its manifest says")


def _damaged(folder: Destination, file: ExportedFile, what: str) -> SetupError:
    return SetupError(
        f"{file.path} of the export at {folder.uri} {what}; nothing was imported: copy the export "
        "again, or export again"
    )


def _sha256(folder: Destination, path: str) -> str:
    content = hashlib.sha256()
    with folder.open(path) as source:
        while block := source.read(HASHED_BYTES):
            content.update(block)
    return content.hexdigest()


def _by_suffix(
    folder: Destination, paths: Sequence[str], format_name: str | None, names: Mapping[str, str]
) -> Incoming:
    """Files of the one format that stands there, told by the ends of their names."""
    paths = [path for path in paths if not _is_hidden(path)]
    formats = KNOWN_EXPORTERS.names() if format_name is None else (format_name,)
    by_format = {name: _shards(paths, KNOWN_EXPORTERS.get(name).suffixes) for name in formats}
    by_format = {name: shards for name, shards in by_format.items() if shards}
    # Parquet beside vectors is a part of their shards.
    beside = [name for name in by_format if len(KNOWN_EXPORTERS.get(name).suffixes) > 1]
    chosen = beside or list(by_format)
    if not chosen:
        ends = ", ".join("+".join(KNOWN_EXPORTERS.get(name).suffixes) for name in formats)
        raise UsageError(
            f"nothing to import at {folder.uri}; files whose names end in {ends} were looked for"
        )
    if len(chosen) > 1:
        raise UsageError(
            f"{folder.uri} has files of several formats, {' and '.join(chosen)}; name the format"
        )
    return Incoming(folder, chosen[0], by_format[chosen[0]], None, names)


def _shards(paths: Sequence[str], suffixes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Shards whose files are all there."""
    present = set(paths)
    stems = [path.removesuffix(suffixes[0]) for path in paths if path.endswith(suffixes[0])]
    shards = [tuple(stem + suffix for suffix in suffixes) for stem in stems]
    return tuple(shard for shard in shards if present.issuperset(shard))


def _is_hidden(path: str) -> bool:
    return any(name.startswith(("_", ".")) for name in path.split("/"))


def _suffix(path: str) -> str:
    return f".{path.rpartition('.')[2]}"
