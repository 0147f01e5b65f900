"""Peers are judged by the words in their tables; each has an environment of pinned packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from benchmarks.machine import ROOT
from embedding_core.encoder import Encoder
from experiments.faults import shim
from experiments.peers.corpus import Corpus, first_state, second_state, write
from experiments.peers.oracle import kinds_of_wrong, newest_version, torn_files, words_of
from experiments.peers.peer import HERE, TOOLS, versions
from experiments.peers.programs.hashed_words import DIM, vectors
from experiments.peers.trials import TRIALS

BEFORE: Corpus = {"a": {"d": "a0 a1 a2"}, "b": {"d": "b0"}}
AFTER: Corpus = {"a": {"d": "a3 a4"}, "c": {"d": "b0"}}
Row = tuple[str, str]
"""Name of the file and text."""
ROWS: Sequence[Row] = (("a", "a3"), ("a", "a4"), ("c", "b0"))


def table_of_rows(rows: Iterable[Row], turned: bool = False) -> pa.Table:
    """A table as a tool might write it; ``turned``: each vector is another text's."""
    sources, texts = (list(column) for column in zip(*rows, strict=True))
    listed = vectors(texts[::-1] if turned else texts)
    kind = pa.list_(pa.float32(), DIM)
    return pa.table({"source": sources, "text": texts, "vector": pa.array(listed, kind)})


def commit(lake: Path, rows: Iterable[Row], turned: bool = False) -> None:
    lance.write_dataset(table_of_rows(rows, turned), lake / "docs.lance", mode="overwrite")


def test_vectors_of_peers_are_those_of_the_hashing_encoder() -> None:
    texts = [
        *(text for file in second_state().values() for text in file.values()),
        "Wörter, 7!",
        "",
    ]
    expected = Encoder.load("hashing", dim=DIM).encode_documents(texts)
    assert np.allclose(vectors(texts), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "turned", "kinds"),
    [
        (ROWS, False, []),
        ([("a", "a4 a3"), ("c", "b0")], False, []),
        (ROWS[:-1], False, ["missing"]),
        ([*ROWS, ("a", "a3")], False, ["twice"]),
        ([*ROWS, ("a", "a2")], False, ["stale"]),
        ([*ROWS[:-1], ("b", "b0")], False, ["missing", "stale"]),
        (ROWS, True, ["another vector"]),
    ],
)
def test_oracle_names_what_is_wrong_with_a_table(
    tmp_path: Path, rows: Sequence[Row], turned: bool, kinds: list[str]
) -> None:
    commit(tmp_path, rows, turned)
    assert kinds_of_wrong(tmp_path, AFTER) == kinds


def test_oracle_misses_every_word_of_a_table_that_was_never_made(tmp_path: Path) -> None:
    assert kinds_of_wrong(tmp_path, AFTER) == ["missing"]
    assert torn_files(tmp_path, 0, BEFORE, AFTER) == set()


@pytest.mark.parametrize(
    ("between", "torn"),
    [
        ([("a", "a0 a1 a2"), ("b", "b0")], set()),
        ([("a", "a3 a4"), ("b", "b0"), ("c", "b0")], set()),
        ([("a", "a3"), ("c", "b0")], {"a"}),
        ([("a", "a0 a1 a2"), ("a", "a3 a4"), ("c", "b0")], {"a"}),
        ([("c", "b0")], {"a"}),
        ([("a", "a3 a4"), ("c", "b0"), ("c", "b0")], {"c"}),
    ],
)
def test_oracle_names_files_that_a_reader_could_see_in_neither_state(
    tmp_path: Path, between: Sequence[Row], torn: set[str]
) -> None:
    commit(tmp_path, [("a", "half")])
    start = newest_version(tmp_path)
    commit(tmp_path, between)
    commit(tmp_path, ROWS)
    assert torn_files(tmp_path, start, BEFORE, AFTER) == torn


def test_corpus_has_every_word_once_and_every_kind_of_change(tmp_path: Path) -> None:
    before, after = first_state(), second_state()
    assert max(words_of(before).values()) == max(words_of(after).values()) == 1
    old, new = words_of(before).keys(), words_of(after).keys()
    assert before.keys() - after.keys() == {"f3.jsonl", "f4.jsonl"}
    assert {name for name, _ in new - old} >= {"new0.jsonl", "f0.jsonl", "renamed.jsonl"}
    assert {name for name, _ in old - new} >= {"f0.jsonl", "f2.jsonl"}
    assert not {word for name, word in new - old if name == "f2.jsonl"}, "it only shrinks"
    for corpus in (before, after):
        write(tmp_path, corpus)
        assert {path.name for path in tmp_path.iterdir()} == corpus.keys()


def test_environments_of_peers_pin_every_package_and_have_no_torch() -> None:
    for name in TOOLS.keys() - {"embedlake"}:
        text = (HERE / "environments" / f"{name.lower()}.txt").read_text()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), name
        assert "torch" not in text
        assert versions(name).keys() == set(TOOLS[name].packages)


@pytest.mark.slow
@pytest.mark.skipif(shim.missing() is not None, reason=str(shim.missing()))
def test_embedlake_violates_nothing_in_a_round_of_each_trial(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.peers", "--environments", str(tmp_path / "none")]
    chosen = ["--peer", "embedlake", "--rounds", "1", "--results", str(tmp_path)]
    done = subprocess.run([*command, *chosen], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    for trial in TRIALS:
        result = json.loads((tmp_path / f"peers-{trial}.json").read_text())
        outcome: dict[str, Any] = result["peers"]["embedlake"]
        assert outcome["violations"] == [], trial
        assert outcome["injections"] + outcome["counts"].get("ended before the fault", 0) == 1
        assert outcome["counts"].get("a reader could see a file that is not whole", 0) == 0
