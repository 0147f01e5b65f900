"""Arithmetic on the CPU in a few threads, the same ones whoever calls."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from embedding_core.encoder import Encoder
from embedding_core.encoder.local import cpu
from embedding_core.encoder.local.cpu import MOST_LANES, Lanes, compute
from embedding_core.encoder.local.processor import cores_allowed
from tests.checkpoints import TEXTS

CPU = torch.device("cpu")
N_CALLERS = 4


@pytest.fixture
def team_of_two() -> Iterator[None]:
    """A team of one thread has no workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_encode_from_many_threads_no_more_workers(team_of_two: None, tiny_qwen3: Path) -> None:
    encoder = Encoder.load(str(tiny_qwen3), device="cpu", dtype="fp32")
    texts = [TEXTS[0][:2_000]] * 4  # some 2,000 tokens of 64 values: torch shares the work
    encoder.encode_documents(texts)
    before = psutil.Process().num_threads()
    encoded, counted = threading.Barrier(N_CALLERS + 1), threading.Event()

    def call() -> None:
        try:
            encoder.encode_documents(texts)
            encoded.wait()
        except BaseException:
            encoded.abort()  # nobody waits for a caller that failed
            raise
        counted.wait()

    callers = [threading.Thread(target=call) for _ in range(N_CALLERS)]
    for caller in callers:
        caller.start()
    try:
        encoded.wait()
        during = psutil.Process().num_threads()
    finally:
        counted.set()
        for caller in callers:
            caller.join()
    assert during <= before + N_CALLERS


def test_compute_cpu_one_thread_and_errors_come_out() -> None:
    here: Callable[[], int] = threading.get_ident
    assert compute(CPU, here) == compute(CPU, here) != here()
    assert compute(torch.device("meta"), here) == here()  # as for a GPU
    with pytest.raises(ZeroDivisionError):
        compute(CPU, divmod, 1, 0)


def test_compute_number_of_threads_is_the_caller_s() -> None:
    before = torch.get_num_threads()
    assert compute(CPU, torch.get_num_threads) == before
    try:
        torch.set_num_threads(1)
        assert compute(CPU, torch.get_num_threads) == 1
    finally:
        torch.set_num_threads(before)
    assert compute(CPU, torch.get_num_threads) == before


def test_lanes_callers_that_come_together_share_them() -> None:
    lanes, together, seen = Lanes(CPU, 5, 3), threading.Barrier(N_CALLERS), set[int]()
    met = threading.Barrier(lanes.number)  # no lane does two pieces of work while another has none

    def work() -> None:
        seen.add(threading.get_ident())
        met.wait()

    def call() -> None:
        together.wait()
        lanes.run(work)

    callers = [threading.Thread(target=call) for _ in range(N_CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(seen) == lanes.number


def test_lanes_each_has_its_share_of_the_cores_and_new_threads_keep_theirs() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(6)
    try:
        lanes, met = Lanes(CPU, 3, 2), threading.Barrier(3)
        seen = []

        def work() -> None:
            met.wait()  # all lanes at once, or this never ends
            seen.append((threading.get_ident(), torch.get_num_threads()))

        lanes.run(work)
        assert [threads for _, threads in seen] == [2, 2, 2]
        assert len({thread for thread, _ in seen}) == 3
        counts: list[int] = []
        thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert counts == [6] == [torch.get_num_threads()]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("threads", "n_texts", "n_tokens", "lanes"),
    [
        (1, 99, 9_999, (1, 1)),
        (2, 99, 9_999, (2, 1)),
        (2, 99, 100, (1, 2)),
        (2, 1, 9_999, (1, 2)),
        (8, 7, 9_999, (1, 8)),
        (64, 99, 99_999, (MOST_LANES, 8)),
    ],
)
def test_lanes_as_many_as_cores_unless_there_is_too_little_work(
    threads: int, n_texts: int, n_tokens: int, lanes: tuple[int, int]
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        chosen = Lanes.of(CPU, n_texts, n_tokens)
    finally:
        torch.set_num_threads(before)
    assert (chosen.number, chosen.threads) == lanes
    assert Lanes.of(torch.device("meta"), n_texts, n_tokens).number == 1


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "400000 100000\n"}, 4),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_cores_allowed_by_the_containers_quota(
    tmp_path: Path, files: dict[str, str], cores: int | None
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cores_allowed(tmp_path) == cores


def test_lanes_of_a_container_are_no_more_than_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "cores_allowed", lambda: 1)
    assert (Lanes.of(CPU, 99, 9_999).number, compute(CPU, torch.get_num_threads)) == (1, 1)


def test_encode_lanes_same_vectors_as_one_thread(team_of_two: None, tiny_qwen3: Path) -> None:
    texts = [text[:300] for text in TEXTS[:40]]
    encoder = Encoder.load(str(tiny_qwen3), device="cpu", dtype="fp32", batch_tokens=256)
    side_by_side = encoder.encode_documents(texts)
    torch.set_num_threads(1)
    assert np.abs(encoder.encode_documents(texts) - side_by_side).max() <= 1e-5


FORKED = """
import multiprocessing
import torch
from embedding_core.encoder.local.cpu import compute

cpu = torch.device("cpu")
compute(cpu, int, "7")
child = multiprocessing.get_context("fork").Process(target=compute, args=(cpu, int, "7"))
child.start()
child.join()
raise SystemExit(child.exitcode)
"""


def test_compute_after_fork_a_thread_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
