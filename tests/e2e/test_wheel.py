"""The wheel, installed beside a project of the user's: it owns no name of theirs, and it runs.

What the wheel requires is borrowed from the environment of the tests. ``make check-install`` has
pip get it from the registry instead, as a user would: minutes, and 3 GB.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

from embedding_core.recipe import Recipe
from embedlake.local import stack
from embedlake.settings import Settings
from tests.driver import run, write_jsonl
from tests.e2e.conftest import DONE, FAILED, ROOT, Answer, Commands, run_command
from tests.e2e.recipes import write_recipe
from tests.models import describe
from tests.pages import commands as commands_of
from tests.pages import unlike
from tests.requirements import ORCHESTRATOR

pytestmark = pytest.mark.e2e

SEARCH = """
import sys
from embedlake import Encoder, Lake
lake, model = sys.argv[1:]
print(Lake.open(lake).table("docs").search("a pet naps", Encoder.load(model))[0].doc_id)
"""
FROM_REGISTRY = os.environ.get("WHEEL_DEPENDENCIES") == "registry"
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
    """Programs of an environment with the wheel and all that its extra ``run`` requires."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    if FROM_REGISTRY:
        pip_install(folder, torch())  # first: others would pull another
        pip_install(folder, f"{wheel}[run]")
    else:  # a path file reads no other path files: the checkout does not come along
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip_install(folder, "--no-deps", "--no-index", "--force-reinstall", str(wheel))
    return folder / "bin"


def pip_install(environment: Path, *arguments: str) -> None:
    """Install into an environment that has no pip."""
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", *arguments], check=True)


def torch() -> str:
    """The version of torch that is tested: the newest may be a CUDA build of several GB."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def test_wheel_owns_two_names_and_is_typed(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel).namelist()
    names = {name.partition("/")[0] for name in files if ".dist-info/" not in name}
    assert names == {"embedding_core", "embedlake"}
    wanted = {"embedding_core/py.typed", "embedlake/py.typed", "embedlake/flows/embed.py",
              "embedding_core/reports/pages/style.css", "embedding_core/reports/pages/table.html",
              "embedlake/deployments/prefect.yaml"}  # fmt: skip
    assert wanted <= set(files)


def test_core_requirements_leave_the_orchestrator_to_an_extra(wheel: Path) -> None:
    (metadata,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA"))
    lines = zipfile.ZipFile(wheel).read(metadata).decode().splitlines()
    required = [line for line in lines if line.startswith("Requires-Dist:")]
    core = [line for line in required if "extra ==" not in line]
    assert core and not any(name in " ".join(core) for name in ("prefect", "ray", "matplotlib"))
    assert any("prefect" in line and 'extra == "run"' in line for line in required)


@pytest.mark.skipif(not FROM_REGISTRY, reason="gets 1 GB from the registry: make check-install")
def test_core_alone_finds_and_says_what_it_lacks(wheel: Path, minilm: str, tmp_path: Path) -> None:
    venv.create(tmp_path / "core", symlinks=True)
    pip_install(tmp_path / "core", torch())
    pip_install(tmp_path / "core", str(wheel))
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / "core/bin/python")]
    listed = subprocess.run([*pip, "list", "--format", "json"], capture_output=True, check=True)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert {"embedlake", "torch", "pylance"} <= names and not names & ORCHESTRATOR
    write_jsonl(tmp_path, "a.jsonl", {"cat": "The cat sleeps on the sofa.", "tax": "Taxes rose."})
    checkpoint = str(describe(minilm).checkpoint.config_file.parent)
    recipe = write_recipe(tmp_path, model={"name": checkpoint, "dim": None})
    run(Recipe.load(recipe))

    def core(*command: str) -> Answer:
        program = str(tmp_path / "core" / "bin" / command[0])
        return run_command([program, *command[1:]], {"HOME": str(tmp_path)}, cwd=tmp_path)

    searched = core("python", "-c", SEARCH, str(tmp_path / "lake"), checkpoint)
    assert (searched.code, searched.out) == (DONE, "cat\n"), searched.err
    searched = core("embedlake", "search", str(recipe), "a pet naps", "--json")
    assert searched.json["hits"][0]["doc_id"] == "cat"
    assert core("embedlake", "plan", str(recipe), "--json").json["nothing_to_do"]
    write_jsonl(tmp_path, "b.jsonl", {"sun": "Leaves turn light into sugar."})
    refused = core("embedlake", "embed", str(recipe))
    assert refused.code == FAILED and "pip install 'embedlake[run]'" in refused.err


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


def test_quickstart_does_what_it_shows(installed: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text()
    (deploy_file,) = re.findall(r"```yaml\n# articles.deploy.yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "articles.deploy.yaml").write_text(deploy_file)
    environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name} | {
        "EMBEDLAKE_HOME": str(tmp_path / "home"),
        "PATH": f"{installed}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    printed = ""
    try:
        for command, shown in commands_of(page):
            if command.startswith("export "):  # a line of what the command before it printed
                environment |= dict(re.findall(r"^export (\w+)=(.*)$", printed, re.MULTILINE))
                continue
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environment, text=True,
                capture_output=True, check=False,
            )  # fmt: skip
            printed = done.stderr + done.stdout
            assert done.returncode == 0, f"{command}\n{printed}"
            assert unlike(shown, printed) == [], f"{command}\n{printed}"
    finally:
        stack.down(Settings(home=tmp_path / "home"))
