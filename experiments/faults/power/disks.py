"""What a disk may hold after power was lost: POSIX promises only what was flushed.

Of a file that was not flushed since its last writes the disk has all bytes, none of the new ones,
or a part: the file ends early, or has zeros where pages were not written yet. Names appear in the
order of the calls on a file system with a journal, and in any order on others.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from experiments.faults.power.changes import MAKE_FOLDER, OPEN, REMOVE, RENAME, SYNC, Change

Order = Literal["journal", "any order"]
PAGE_BYTES = 4_096
FATES = ("all", "none", "cut", "zeros")
SHARE_FLUSHED = 0.5
"""How often the kernel has flushed by itself what is older than some moment."""
SHARE_OF_NAMES = 0.8
"""How many changes of names survive that may be lost, in any order."""


@dataclass(slots=True)
class Content:
    """What a file contains in memory and, at least, on the disk."""

    now: bytearray
    flushed: bytes


@dataclass(slots=True)
class Disk:
    """Files by their paths, and folders."""

    files: dict[str, Content] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, folder: Path) -> Disk:
        """All that is below a folder, flushed long ago."""
        disk = cls(folders={str(folder)})
        for path in folder.rglob("*"):
            if path.is_dir():
                disk.folders.add(str(path))
            else:
                content = path.read_bytes()
                disk.files[str(path)] = Content(bytearray(content), content)
        return disk

    def copy(self) -> Disk:
        """The same names for the same contents."""
        return Disk(dict(self.files), set(self.folders))

    def apply_name(self, change: Change, contents: dict[int, Content], number: int) -> None:
        """Do what a change does to names; ``contents``: of files that changes made, by numbers of
        changes."""
        if change.what == MAKE_FOLDER and self._has_folder(change.path):
            self.folders.add(change.path)
        elif change.what == OPEN and self._has_folder(change.path):
            if change.path not in self.files:
                self.files[change.path] = contents.setdefault(number, Content(bytearray(), b""))
        elif change.what == REMOVE:
            self.files.pop(change.path, None)
            if not self._is_used(change.path):
                self.folders.discard(change.path)
        elif change.path in self.files and self._has_folder(change.other):
            self.files[change.other] = self.files[change.path]
            if change.what == RENAME:
                del self.files[change.path]

    def _is_used(self, folder: str) -> bool:
        return any(path.startswith(f"{folder}/") for path in (*self.files, *self.folders))

    def _has_folder(self, path: str) -> bool:
        return str(Path(path).parent) in self.folders


def after_power_loss(
    folder: Path, changes: Sequence[Change], chance: random.Random, order: Order
) -> Disk:
    """A state in which the disk of a folder may be after some first part of the changes."""
    n_changes = chance.randint(1, len(changes))
    done = changes[:n_changes]
    # 1. In memory all changes are done. What the kernel flushed by itself is on the disk, too.
    n_flushed = chance.randrange(n_changes) if chance.random() < SHARE_FLUSHED else 0
    contents: dict[int, Content] = {}
    before = Disk.of(folder)
    memory, disk = before.copy(), before.copy()
    must: set[int] = set(range(n_flushed))
    for number, change in enumerate(done):
        if number == n_flushed:
            for content in memory.files.values():
                content.flushed = bytes(content.now)
        _apply(memory, change, contents, number)
        if change.what == SYNC:
            must |= set(_forced(done[:number], change.path, order))
    # 2. Changes of names that were not flushed may be lost.
    named = [number for number, change in enumerate(done) if change.is_of_names]
    last = chance.choice([max(must, default=-1), *named, n_changes])
    kept = [
        number
        for number in named
        if number in must
        or (number <= last if order == "journal" else chance.random() < SHARE_OF_NAMES)
    ]
    for number in kept:
        disk.apply_name(done[number], contents, number)
    # 3. So may what files contain.
    for content in {id(content): content for content in disk.files.values()}.values():
        content.now = bytearray(_survivor(content, chance))
    return disk


def _apply(memory: Disk, change: Change, contents: dict[int, Content], number: int) -> None:
    if change.is_of_names:
        memory.apply_name(change, contents, number)
        if change.truncates and change.path in memory.files:
            memory.files[change.path].now.clear()
    elif change.path in memory.files:
        content = memory.files[change.path]
        if change.what == SYNC:
            content.flushed = bytes(content.now)
        else:
            end = change.offset + len(change.content)
            content.now.extend(bytes(max(0, end - len(content.now))))
            content.now[change.offset : end] = change.content


def _forced(done: Sequence[Change], path: str, order: Order) -> Iterable[int]:
    """Changes of names that are on the disk when ``path`` was flushed: in a journal all before,
    else those in the folder that was flushed, and those that made it."""
    for number, change in enumerate(done):
        if not change.is_of_names:
            continue
        entry = change.other or change.path
        is_above = path.startswith(f"{entry}/") and change.what == MAKE_FOLDER
        if order == "journal" or str(Path(entry).parent) == path or is_above:
            yield number


def _survivor(content: Content, chance: random.Random) -> bytes:
    """What a file contains on the disk."""
    now, flushed = bytes(content.now), content.flushed
    if now == flushed:
        return now
    fate = chance.choice(FATES)
    if fate == "all":
        return now
    if fate == "none":
        return flushed
    end = chance.randrange(len(flushed), len(now)) if len(now) > len(flushed) else 0
    if fate == "cut":
        return now[:end]
    page = end // PAGE_BYTES * PAGE_BYTES
    return now[:page] + bytes(len(now) - page)


def write_to(disk: Disk, folder: Path) -> None:
    """Make a folder, which is empty, what the disk holds of it."""
    for path in sorted(disk.folders):
        Path(path).mkdir(parents=True, exist_ok=True)
    for name, content in disk.files.items():
        Path(name).write_bytes(bytes(content.now))
