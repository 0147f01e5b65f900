"""Bridges beside a table, in a folder and on S3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedding_core.lake.spaces.bridges import (
    bridge_path,
    forget_bridges,
    keep_bridge,
    read_bridge,
)
from embedding_core.lake.table import Lake, Table
from embedding_core.store import storage
from tests.s3 import S3Server

NEW, OLD = "a" * 64, "b" * 64


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.server)])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Table:
    if request.param == "local":
        return Table(Lake.open(str(tmp_path)), "t")
    s3: S3Server = request.getfixturevalue("s3")
    return Table(Lake.open(f"s3://{s3.bucket}/{tmp_path.name}", s3.storage), "t")


def matrix(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)


def test_bridge_is_read_as_it_was_kept_and_until_it_is_forgotten(table: Table) -> None:
    assert read_bridge(table, NEW, OLD) is None
    keep_bridge(table, NEW, OLD, matrix(1))
    keep_bridge(table, OLD, NEW, matrix(2))
    for (start, end), seed in {(NEW, OLD): 1, (OLD, NEW): 2}.items():
        kept = read_bridge(table, start, end)
        assert kept is not None and np.array_equal(kept, matrix(seed))
    keep_bridge(table, NEW, OLD, matrix(3))
    again = read_bridge(table, NEW, OLD)
    assert again is not None and np.array_equal(again, matrix(3))
    forget_bridges(table)
    assert read_bridge(table, NEW, OLD) is None and read_bridge(table, OLD, NEW) is None
    forget_bridges(table)


def test_bridges_of_other_tables_are_left_alone(table: Table) -> None:
    other = Table(table.lake, "other")
    keep_bridge(other, NEW, OLD, matrix(1))
    keep_bridge(table, NEW, OLD, matrix(2))
    forget_bridges(table)
    kept = read_bridge(other, NEW, OLD)
    assert kept is not None and np.array_equal(kept, matrix(1))
    fs = storage.filesystem(other.lake.uri, other.lake.storage)
    assert fs.exists(bridge_path(other, NEW, OLD))
