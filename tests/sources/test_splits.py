"""Configs and splits are told from names, as hubs lay out files."""

from __future__ import annotations

import pytest

from embedding_core.sources.splits import Subset, config_of, split_of


@pytest.mark.parametrize(
    ("file", "config", "split"),
    [
        ("data/train-00000-of-00010.parquet", "default", "train"),
        ("data/my_split-00003-of-00010.parquet", "default", "my_split"),
        ("fr/test-00000-of-00001-0123456789abcdef.parquet", "fr", "test"),
        ("fr/train/0000.parquet", "fr", "train"),
        ("fr/partial-train/0000.parquet", "fr", "train"),
        ("default/odd/0007.parquet", "default", "odd"),
        ("data/0000.parquet", "default", None),
        ("train.jsonl.gz", "default", "train"),
        ("my-test-set.csv", "default", "test"),
        ("valid/part.jsonl", "default", "validation"),
        ("data/fr/dev.jsonl", "fr", "validation"),
        ("latest.jsonl", "default", None),
        ("contest/a.jsonl", "contest", None),
    ],
)
def test_a_name_tells_config_and_split(file: str, config: str, split: str | None) -> None:
    assert (config_of(file), split_of(file)) == (config, split)


def test_a_subset_takes_other_names_of_its_split() -> None:
    subset = Subset(split="dev")
    assert subset.takes("validation.jsonl")
    assert not subset.takes("train.jsonl")
    assert "source.split is 'dev', the names show train, validation" in subset.why_empty()


def test_without_config_and_split_every_file_is_taken() -> None:
    subset = Subset()
    assert subset.takes("anything.jsonl")
    assert subset.why_empty() == ""
