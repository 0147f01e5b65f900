"""The changes that a run made to files, in their order, as the shim's log has them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.faults import shim

LONGEST_PATH = 512
ENTRY = struct.Struct(f"@c{LONGEST_PATH}s{LONGEST_PATH}sqq")
"""``struct entry`` of the shim."""
OPEN, WRITE, SYNC, RENAME, LINK, MAKE_FOLDER, REMOVE = "owsrlmu"
"""What a change does."""
TEMPORARY, HINT = ".tmp", "latest_version_hint.json"
"""How names begin that Lance writes files under, and the file that tells its newest version."""


@dataclass(frozen=True, slots=True)
class Change:
    """A call that changed a file or a folder, or flushed it to the disk."""

    what: str
    path: str
    other: str = ""
    """The new name."""
    offset: int = 0
    """Of a write; of a file that is opened, its number in the file system."""
    content: bytes = b""
    truncates: bool = False

    @property
    def is_of_names(self) -> bool:
        """Whether it may change what names there are, and not what files contain."""
        return self.what not in (WRITE, SYNC)


def recorded(action: Callable[[], Any], folder: Path, log: Path) -> Callable[[], Any]:
    """The action, which writes its changes below the folder into a log; for a child to do."""

    def act() -> Any:
        shim.arm(folder, shim.Fault.STOP)
        shim.record(log)
        try:
            return action()
        finally:
            shim.record(None)

    return act


def read_changes(log: Path, folder: Path) -> list[Change]:
    """The changes of a log, right after them.

    Lance gives a file that it has written its name by a call that the shim does not see: where a
    file is that was opened by another name shows in the folder, by its number. One that is gone
    was ``HINT``, which each version replaces.
    """
    changes = list(_changes(log.read_bytes()))
    paths = {path.stat().st_ino: str(path) for path in folder.rglob("*") if path.is_file()}
    names: dict[int, str] = {}
    for number, change in reversed(list(enumerate(changes))):
        if change.what == OPEN and Path(change.path).name.startswith(TEMPORARY):
            hint = str(Path(change.path).with_name(HINT))
            names[_last_write(changes, number)] = paths.pop(change.offset, hint)
    return list(_with_renames(changes, names))


def _last_write(changes: Sequence[Change], opened: int) -> int:
    """The number of the last write to a file that was opened by a temporary name of its own."""
    path = changes[opened].path
    return max(n for n, change in enumerate(changes) if change.path == path)


def _with_renames(changes: Sequence[Change], names: Mapping[int, str]) -> Iterator[Change]:
    for number, change in enumerate(changes):
        yield change
        if number in names:
            yield Change(RENAME, change.path, names[number])


def _changes(log: bytes) -> Iterator[Change]:
    start = 0
    while start < len(log):
        letter, path, other, offset, number = ENTRY.unpack_from(log, start)
        start += ENTRY.size
        what, content = letter.decode(), b""
        if what == WRITE:
            content = log[start : start + number]
            start += number
        truncates = what == OPEN and bool(number & os.O_TRUNC)
        yield Change(what, _text(path), _text(other), offset, content, truncates)


def _text(field: bytes) -> str:
    return os.fsdecode(field.partition(b"\0")[0])
