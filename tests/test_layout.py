"""What an import costs: measured in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

HEAVY = ("torch", "transformers", "lancedb", "lance", "prefect", "ray")
IMPORT_SECONDS = 0.3
PRINT_HEAVY = (
    "import sys; print(*[name for name in {names!r} if name in sys.modules], file=sys.stderr)"
)


def loaded_by(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of the modules a fresh interpreter has loaded after the code."""
    program = f"{code}\n{PRINT_HEAVY.format(names=names)}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stderr.split()


def seconds_of(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def test_import_embedding_core_loads_nothing_heavy() -> None:
    assert loaded_by("import embedding_core", (*HEAVY, "pydantic", "pyarrow", "numpy")) == []


def test_import_embedding_core_takes_no_time() -> None:
    took = min(seconds_of("import embedding_core") for _ in range(3))
    assert took < IMPORT_SECONDS, f"interpreter and import took {took:.2f} s at best"


def test_public_names_are_there_and_load_no_orchestrator() -> None:
    code = "import embedding_core as e; [getattr(e, name) for name in e.__all__]"
    assert loaded_by(code, ("prefect", "ray", "torch", "transformers")) == []


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import contextlib, sys\n"
        "from embedlake.cli import main as cli\n"
        "sys.argv = ['embedlake', '--help']\n"
        "with contextlib.suppress(SystemExit): cli.main()"
    )
    assert loaded_by(code, HEAVY) == []


def test_console_script_prints_help() -> None:
    program = Path(sys.executable).parent / "embedlake"
    done = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: embedlake")
