"""Where an export goes: a folder on this machine or below ``s3://bucket``.

A file appears complete or not at all: on disk it is renamed into its place, on S3 an object
appears when its upload ends.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from embedding_core.errors import EmbedlakeError, SetupError, Transient, UsageError, words
from embedding_core.store import storage
from embedding_core.store.faults import Fault, fault_of, without_credentials
from embedding_core.store.retry import never_silent
from embedding_core.store.storage import StorageSpec

UPLOAD_BYTES = 16 * 2**20
"""Bytes of an upload that wait in memory, per file."""
DIGEST_BYTES = 16 * 2**20
"""Bytes that wait in memory for their digest, per file."""


class DigestedFile:
    """A file to be written once, from its beginning to its end; knows its size and SHA-256.

    The digest is taken in a thread of ``digests`` while the next bytes are made: it costs a fifth
    of writing Parquet.
    """

    def __init__(self, sink: IO[bytes], digests: Executor) -> None:
        self._sink, self._digests = sink, digests
        self._sha256 = hashlib.sha256()
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._waiting_bytes = 0
        self.size_bytes = 0
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write and count. ``data`` may change after this, unless it is ``bytes``."""
        kept = data if isinstance(data, bytes) else bytes(data)
        self._sink.write(kept)
        self._waiting.append((len(kept), self._digests.submit(self._sha256.update, kept)))
        self._waiting_bytes += len(kept)
        self._wait(DIGEST_BYTES)
        self.size_bytes += len(kept)
        return len(kept)

    def writable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size_bytes

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Whoever opened the sink closes it."""

    @property
    def sha256(self) -> str:
        """Digest of what was written, 64 hex digits."""
        self._wait(0)
        return self._sha256.hexdigest()

    def _wait(self, most_bytes: int) -> None:
        """Wait until at most so many bytes are left to be digested."""
        while self._waiting and self._waiting_bytes > most_bytes:
            n_bytes, digested = self._waiting.popleft()
            digested.result()
            self._waiting_bytes -= n_bytes


@dataclass(frozen=True, slots=True)
class Destination:
    """A folder by its URI; paths in it have ``/`` between their names."""

    uri: str
    storage: StorageSpec

    @classmethod
    def parse(cls, uri: str, spec: StorageSpec) -> Destination:
        """Raises ``UsageError`` for a place that cannot be written to."""
        scheme = storage.scheme_of(uri)
        if scheme not in storage.SCHEMES:
            raise UsageError(
                f"nothing can be exported to {scheme}://; name a local folder, "
                "s3://bucket/prefix or hf://datasets/owner/name"
            )
        if scheme == "s3" and "@" in uri.removeprefix("s3://").partition("/")[0]:
            raise UsageError(
                "the destination holds credentials; name it without them, s3://bucket/prefix, and "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        return cls(storage.absolute(uri, Path.cwd()), spec)

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return storage.is_local(self.uri)

    def is_empty(self) -> bool:
        """Whether no file is there; a process that was killed may have left folders."""
        if self.is_local and Path(self.uri).is_file():
            raise UsageError(f"{self.uri} is a file; name a folder as the destination")
        with self._faults("list"):
            if not storage.names_in(self.uri, self.storage):
                return True
            return not any(True for _ in storage.files_below(self.uri, self.storage))

    def holds(self, path: str) -> bool:
        """Whether there is such a file."""
        with self._faults("list"):
            fs = storage.filesystem(self.uri, self.storage)
            return bool(fs.isfile(self.at(path)))

    def paths(self, below: str = "") -> dict[str, int]:
        """Size of every file below a folder, by its path; empty without such a folder."""
        root = self.at(f"{below}/").rstrip("/") if below else self.uri
        with self._faults("list"):
            files = storage.files_below(root, self.storage)
            base = self.uri.removeprefix("s3://") + "/"
            return {
                file.uri.removeprefix("s3://").removeprefix(base): file.size_bytes for file in files
            }

    def read(self, path: str) -> bytes | None:
        """A small file, whole; None when it is missing."""
        with self._faults("read"):
            try:
                return storage.read_bytes(self.at(path), self.storage)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, path: str, data: bytes) -> None:
        """Write a small file over what is there."""
        with self._faults("write"):
            storage.write_bytes(self.at(path), data, self.storage)

    def create(self, path: str, data: bytes) -> bool:
        """Write a small file unless there is one; of several writers one alone gets True."""
        with self._faults("write"):
            return storage.create_bytes(self.at(path), data, self.storage)

    @contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        """A file to be read."""
        fs = storage.filesystem(self.uri, self.storage)
        with self._faults("read"), fs.open(self.at(path), "rb") as source:
            yield source

    @contextmanager
    def new_files(self, paths: Iterable[str], workspace: str) -> Iterator[list[DigestedFile]]:
        """Files to be written, for as long as the context lasts; they appear at its end.

        ``workspace``: a folder of the destination for files that are not complete.
        """
        with (
            self._faults("write"),
            ThreadPoolExecutor(1, thread_name_prefix="embedlake-digests") as digests,
            ExitStack() as stack,
        ):
            yield [stack.enter_context(self._new_file(path, workspace, digests)) for path in paths]

    @contextmanager
    def _new_file(self, path: str, workspace: str, digests: Executor) -> Iterator[DigestedFile]:
        if self.is_local:
            partial = Path(self.at(workspace)) / f"{uuid.uuid4().hex}.partial"
            target = Path(self.at(path))
            for folder in (partial.parent, target.parent):
                folder.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as sink:
                    yield DigestedFile(sink, digests)
                    sink.flush()
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            return
        fs = storage.filesystem(self.uri, self.storage)
        sink = fs.open(self.at(path), "wb", block_size=UPLOAD_BYTES)
        try:
            yield DigestedFile(sink, digests)
        except BaseException:
            sink.discard()  # closing would complete the upload
            sink.closed = True
            raise
        with never_silent(f"write {self.at(path)}"):
            sink.close()

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files, and on disk the folders that are empty then."""
        fs = storage.filesystem(self.uri, self.storage)
        with self._faults("remove"):
            for path in paths:
                if not self.is_local:
                    fs.rm_file(self.at(path))
                    continue
                Path(self.at(path)).unlink(missing_ok=True)
                _remove_empty(Path(self.at(path)).parent, Path(self.uri))

    def at(self, path: str) -> str:
        """The URI of a file. Raises ``UsageError`` where a link leads to another folder; the file
        itself may be one."""
        folder, _, name = f"{self.uri}/{path}".rpartition("/")
        if (link := storage.link_to(folder, self.uri)) is not None:
            raise UsageError(f"{link} is a link, which would lead out of {self.uri}; remove it")
        return f"{folder}/{name}"

    @contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        try:
            yield
        except EmbedlakeError:
            raise
        except Exception as error:
            if (fault := self._fault(doing, error)) is None:
                raise
            raise fault from error

    def _fault(self, doing: str, error: Exception) -> EmbedlakeError | None:
        """What an error of the destination means; None for an error of something else."""
        from botocore.exceptions import BotoCoreError, ClientError

        if not isinstance(error, OSError | BotoCoreError | ClientError):
            return None
        problem = f"cannot {doing} {self.uri}: {without_credentials(error) or words(error)}"
        fault = fault_of(error)
        if fault is Fault.PASSING:
            return Transient(f"{problem}; it may pass", action="resume")
        if fault is Fault.FULL:
            return SetupError(f"{problem}; make room, or make it writable", action="resume")
        if fault is Fault.DENIED:
            return SetupError(f"{problem}; make it writable, or name another destination")
        return SetupError(f"{problem}; name another destination")


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
