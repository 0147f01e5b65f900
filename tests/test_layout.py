"""What an import costs: measured in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from embedding_core.identity import ROW_RULES_VERSION
from embedlake.extras import EXTRAS
from tests.driver import recipe_for, write_jsonl
from tests.requirements import modules_outside_the_core

HEAVY = ("torch", "transformers", "lancedb", "lance", "prefect", "ray")
MOST_MODULES = 40
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


def test_import_embedding_core_loads_nothing_heavy() -> None:
    assert loaded_by("import embedding_core", (*HEAVY, "pydantic", "pyarrow", "numpy")) == []


def test_import_embedding_core_loads_few_modules() -> None:
    code = "import sys; n = len(sys.modules); import embedding_core; print(len(sys.modules) - n)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < MOST_MODULES


@pytest.mark.slow
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


@pytest.mark.slow
def test_public_names_of_embedlake_are_there_and_load_nothing_before_they_are_used() -> None:
    assert loaded_by("import embedlake; dir(embedlake)", (*HEAVY, "pydantic", "numpy")) == []
    code = "import embedlake as e; [getattr(e, name) for name in e.__all__]"
    assert loaded_by(code, ("prefect", "ray", "torch", "transformers")) == []
    import embedlake

    assert 10 <= len(embedlake.__all__) <= 15
    with pytest.raises(AttributeError, match="no attribute 'embbed'"):
        _ = embedlake.embbed


CORE_ONLY = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def core_only(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code where only what the core install brings can be imported."""
    program = CORE_ONLY.format(blocked=modules_outside_the_core() | set(EXTRAS)) + code
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_core_install_embeds_and_searches_without_prefect_and_ray(tmp_path: Path) -> None:
    write_jsonl(tmp_path, "a.jsonl", {"x": "a few words"})
    recipe = recipe_for(tmp_path)
    code = """
from embedlake import Encoder, Lake, Recipe, embed
recipe = Recipe.load(sys.argv[1])
assert embed(recipe).outcome == "done"
encoder = Encoder.load("hashing", dim=recipe.model.dim)
table = Lake.open(recipe.lake.uri).table(recipe.lake.table)
print(*[hit.doc_id for hit in table.search("words", encoder)])
"""
    done = core_only(code, recipe.model_dump_json())
    assert (done.returncode, done.stdout.strip()) == (0, "x"), done.stderr


@pytest.mark.slow
def test_command_that_needs_an_extra_says_which(tmp_path: Path) -> None:
    code = "from embedlake.cli.main import main\nsys.argv = ['embedlake', 'up']\nmain()"
    done = core_only(code)
    assert done.returncode == 1
    assert "pip install 'embedlake[run]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_of_the_rules_is_one_while_nothing_is_released() -> None:
    assert ROW_RULES_VERSION == 1
