"""What this machine keeps between processes: copies of remote models, digests, tokenizers.

The folder lies beside the hub's own cache, in ``embedlake`` under huggingface_hub's home
(``HF_HOME``, by default ``~/.cache/huggingface``). Deleting it costs time, never correctness.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

KEPT_BYTES = 16 * 1024 * 1024
"""Digests of smaller files are not kept: reading such a file takes hundredths of a second."""
SETTLED_NS = 2_000_000_000
"""A file written so shortly before its digest was taken could change again and keep its time stamp,
so its digest is not kept."""

Hasher = Callable[[Path], str]
"""SHA-256 of a file, 64 hex digits."""

_ENTRY = re.compile(r"([0-9a-f]{64}) ([0-9a-f]{64})")


def cache_folder() -> Path:
    """The folder, which may not exist yet."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME, "embedlake")


def sha256(file: Path) -> str:
    """SHA-256 of the file, 64 hex digits; reads all of it."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def file_digest(path: Path, hasher: Hasher = sha256) -> str:
    """SHA-256 of the file, 64 hex digits; read once per machine as long as it does not change."""
    file = path.resolve()
    keep = file.stat().st_size >= KEPT_BYTES
    return _digest(file, file_version(file), keep, _written_ns(file), hasher)


def kept_text(path: Path, kind: str, make: Callable[[], str]) -> str:
    """``make()``, once per machine as long as ``path`` does not change; ``kind`` names the result.

    ``kind`` says all that decides the text beside the file.
    """
    file = path.resolve()
    identity = hashlib.sha256(f"text {kind} {file_version(file)} {file}".encode()).hexdigest()
    entry = cache_folder() / "texts" / identity
    with contextlib.suppress(OSError, UnicodeDecodeError):
        check, _, text = entry.read_text(encoding="utf-8").partition("\n")
        if check == _check(identity, text):
            return text
    settled = time.time_ns() - _written_ns(file) > SETTLED_NS
    text = make()
    if settled:
        _write(entry, f"{_check(identity, text)}\n{text}")
    return text


def file_version(file: Path) -> str:
    """What changes with the file's content."""
    stat = file.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_dev} {stat.st_ino}"


def folder_version(folder: Path) -> tuple[tuple[str, str], ...]:
    """What changes when a file of a folder, or of a folder in it, is added, removed or changed.

    Links are followed: the hub's cache keeps the files elsewhere.
    """
    files = (path for path in folder.rglob("*") if path.is_file())
    return tuple(sorted((str(path), file_version(path)) for path in files))


def _written_ns(file: Path) -> int:
    stat = file.stat()
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=1024)
def _digest(file: Path, version: str, keep: bool, written_ns: int, hasher: Hasher) -> str:
    if not keep:
        return hasher(file)
    identity = hashlib.sha256(f"bytes {version} {file}".encode()).hexdigest()
    entry = cache_folder() / "digests" / identity
    stored = _read(entry, identity)
    if stored is not None:
        return stored
    settled = time.time_ns() - written_ns > SETTLED_NS
    digest = hasher(file)
    if settled:
        _write(entry, f"{digest} {_check(identity, digest)}")
    return digest


def _check(identity: str, digest: str) -> str:
    """A digest that shows that an entry is whole and about this version of this file."""
    return hashlib.sha256(f"{identity} {digest}".encode()).hexdigest()


def _read(entry: Path, identity: str) -> str | None:
    """The digest in an entry; None for a missing or damaged entry."""
    try:
        match = _ENTRY.fullmatch(entry.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError):
        return None
    if match is None or match[2] != _check(identity, match[1]):
        return None
    return match[1]


def _write(entry: Path, content: str) -> None:
    """Several processes may write the same entry; a folder that cannot be written costs time."""
    partial = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(content, encoding="utf-8", newline="\n")
        partial.replace(entry)
