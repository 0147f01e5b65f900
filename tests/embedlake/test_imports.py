"""Importing a flow reads no settings and writes no environment; a command refuses wrong ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from embedlake.deploying.deploy_file import FLOWS

STRAY = {**os.environ, "EMBEDLAKE_RAYADDRESS": "x"}


def in_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=STRAY, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_flows_imported_with_a_stray_variable_change_nothing() -> None:
    modules = ", ".join(f"embedlake.flows.{name}" for name in FLOWS)
    done = in_python(
        "import os; before = {n: v for n, v in os.environ.items() if 'LAKE' in n or 'LANCE' in n};"
        f"import {modules};"
        "after = {n: v for n, v in os.environ.items() if 'LAKE' in n or 'LANCE' in n};"
        "assert before == after, after"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_command_line_starts_before_lance_so_that_lance_hears_what_to_log() -> None:
    done = in_python("import sys, embedlake.cli.main; assert 'lance' not in sys.modules")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_command_with_a_stray_variable_says_what_to_write() -> None:
    done = in_python(
        "import sys; sys.argv = ['embedlake', 'down']; from embedlake.cli.main import main; main()"
    )
    assert done.returncode == 2 and "EMBEDLAKE_RAY_ADDRESS" in done.stderr
