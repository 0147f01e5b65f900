"""Configs and splits of a dataset, told from the names of its files as hubs lay them out.

    data/train-00000-of-00010.parquet      a split of the only config, ``default``
    fr/test-00000-of-00001.parquet         a config's folder, a split's shards
    fr/train/0000.parquet                  a folder for each
    train.jsonl, my-test-set.csv           a split as a word of the name

A dataset card may give files other configs and splits than that; it is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

DEFAULT_CONFIG = "default"
DATA = "data"
"""Folder of the files of a dataset's only config."""
ALIASES = {
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
"""Other names of the usual splits."""
USUAL = frozenset(ALIASES.values())
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}")
_BETWEEN_WORDS = re.compile(r"[-_ 0-9]+")


@dataclass(frozen=True, slots=True)
class Subset:
    """The files of a config and a split; of every config or split where None is asked for."""

    config: str | None = None
    split: str | None = None
    _configs: set[str] = field(default_factory=set)
    _splits: set[str] = field(default_factory=set)

    def takes(self, file: str) -> bool:
        """Whether a file belongs to it, by its path below the source."""
        if self.config is None and self.split is None:
            return True
        config, split = config_of(file), split_of(file)
        self._configs.add(config)
        if split is not None:
            self._splits.add(split)
        is_of_config = self.config in (None, config)
        return is_of_config and (self.split is None or _usual_name(self.split) == split)

    def why_empty(self) -> str:
        """Why no file was taken, in words; empty where neither config nor split was asked for."""
        reasons = []
        if self.config is not None:
            reasons.append(
                f"source.config is {self.config!r}, the folders show {_few(self._configs)}"
            )
        if self.split is not None:
            reasons.append(f"source.split is {self.split!r}, the names show {_few(self._splits)}")
        if reasons:
            reasons.append("where names do not tell, choose the files with source.include")
        return "; ".join(reasons)


def config_of(file: str) -> str:
    """The config of a file: its first folder that is neither ``data`` nor a split."""
    for folder in file.split("/")[:-1]:
        if folder != DATA:
            return DEFAULT_CONFIG if _usual_name(folder) in USUAL else folder
    return DEFAULT_CONFIG


def split_of(file: str) -> str | None:
    """The split of a file; None where its name does not tell."""
    *folders, name = file.split("/")
    stem = name.partition(".")[0]
    if shard := _SHARD.match(stem):
        return _usual_name(shard["split"])
    if stem.isdigit() and folders and folders[-1] != DATA:
        return _usual_name(folders[-1].removeprefix("partial-"))
    words = [*reversed(folders), *_BETWEEN_WORDS.split(stem)]
    return next((split for word in words if (split := _usual_name(word)) in USUAL), None)


def _usual_name(split: str) -> str:
    return ALIASES.get(split, split)


def _few(names: set[str]) -> str:
    return ", ".join(sorted(names)[:8]) or "none"
