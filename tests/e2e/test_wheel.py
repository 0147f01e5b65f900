"""The wheel, installed beside a project of the user's: it owns no name of theirs, and it runs."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.driver import write_jsonl
from tests.e2e.conftest import ROOT, Answer, Commands, run_command

pytestmark = pytest.mark.e2e

RECIPE = """
name: wheel
source: {{uri: {folder}/in, include: ["**/*.jsonl"], id: id}}
model: {{name: hashing, dim: 32}}
lake: {{uri: {folder}/lake, table: docs}}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", folder, ROOT],
        check=True,
    )  # fmt: skip
    (built,) = folder.glob("embedlake-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; its dependencies are those of the tests' environment, which
    does not bring the checkout along: a path file reads no other path files."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps",
         "--no-index", "--force-reinstall", wheel],
        check=True,
    )  # fmt: skip
    return folder / "bin"


def test_wheel_owns_two_names_and_is_typed(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel).namelist()
    names = {name.partition("/")[0] for name in files if ".dist-info/" not in name}
    assert names == {"embedding_core", "embedlake"}
    wanted = {"embedding_core/py.typed", "embedlake/py.typed", "embedlake/flows/embed.py",
              "embedlake/deployments/prefect.yaml"}  # fmt: skip
    assert wanted <= set(files)


def test_core_requirements_leave_the_orchestrator_to_an_extra(wheel: Path) -> None:
    (metadata,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA"))
    lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist:")]
    core = [line for line in required if "extra ==" not in line]
    assert core and not any(name in " ".join(core) for name in ("prefect", "ray", "matplotlib"))
    assert any("prefect" in line and 'extra == "run"' in line for line in required)


def test_deployment_runs_from_a_project_with_flows_of_its_own(
    installed: Path, commands: Commands, tmp_path: Path
) -> None:
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "__init__.py").write_text("MINE = True\n")
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in", "a.jsonl", {"x": "a few words"})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=tmp_path))

    def in_project(*command: str) -> Answer:
        program = str(installed / command[0])
        return run_command([program, *command[1:]], commands.environment, cwd=tmp_path)

    look = "import flows, embedlake.flows.embed as e; print(flows.MINE, e.__file__)"
    done = in_project("python", "-c", look)
    assert done.code == 0, done.err
    assert done.out.split()[0] == "True" and str(installed.parent) in done.out
    printed = in_project("embedlake", "deploy", "--print")
    assert printed.code == 0, printed.err
    ours = yaml.safe_load(printed.out)
    mine = [entry for entry in ours["deployments"] if entry["name"] == "embed"]
    mine[0]["work_pool"] = {"name": "wheel"}  # whose worker is that of the wheel
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({**ours, "deployments": mine}))
    for command in (
        ("work-pool", "create", "wheel", "--type", "process"),
        ("--no-prompt", "deploy", "--name", "embed"),
        ("deployment", "run", "embed/embed", "--param", f"recipe={recipe}"),
        ("worker", "start", "--pool", "wheel", "--run-once"),
    ):
        done = in_project("python", "-m", "prefect", *command)
        assert done.code == 0, done.out + done.err
    status = in_project("embedlake", "status", str(recipe), "--json")
    assert status.code == 0, status.err
    assert status.json["rows"] == 1
