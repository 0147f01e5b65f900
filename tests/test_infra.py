"""Files for containers and for CI name only what exists; neither is run here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "infra" / "Dockerfile").read_text()
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text())
    for path in (ROOT / ".github" / "workflows").glob("*.yml")
}
COMPOSE = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())


def test_dockerfile_copies_what_is_there() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.M)
        for source in line.split()[:-1]
    ]
    assert {"requirements.lock", "embedding_core", "embedlake", "flows"} <= set(copied)
    assert all((ROOT / source).exists() for source in copied)


def test_dockerfile_python_is_one_the_package_takes() -> None:
    assert "FROM python:3.11" in DOCKERFILE


def test_compose_builds_this_dockerfile_and_listens_on_loopback_only() -> None:
    server = COMPOSE["services"]["server"]
    assert (ROOT / "infra" / server["build"]["context"]).resolve() == ROOT
    assert (ROOT / server["build"]["dockerfile"]).is_file()
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])


def test_servers_of_models_listen_on_loopback_only() -> None:
    tei = yaml.safe_load((ROOT / "infra" / "tei" / "compose.yaml").read_text())["services"]["tei"]
    assert all(port.startswith("127.0.0.1:") for port in tei["ports"])
    script = ROOT / "infra" / "vllm" / "serve.sh"
    assert os.access(script, os.X_OK)
    assert "--runner pooling --host 127.0.0.1" in script.read_text()
    assert re.search(r"^vllm==", (script.parent / "requirements.txt").read_text(), re.M)


def test_vllm_script_hands_on_the_model_and_what_follows() -> None:
    script = ROOT / "infra" / "vllm" / "serve.sh"
    arguments = ["owner/model", "--max-model-len", "256"]
    shown = subprocess.run(
        [script, *arguments],
        env=os.environ | {"VLLM": "echo", "PORT": "8001"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == (
        "serve owner/model --runner pooling --host 127.0.0.1 --port 8001 --max-model-len 256"
    )
    nameless = subprocess.run([script], capture_output=True, text=True, check=False)
    assert nameless.returncode != 0 and "name a model" in nameless.stderr


@pytest.mark.slow
def test_container_commands_and_their_options_exist() -> None:
    worker = re.findall(r"CMD \[(.+)\]", DOCKERFILE)[-1].replace('"', "").split(", ")
    for command in (worker, COMPOSE["services"]["server"]["command"]):
        program, options = command[:3], [word for word in command if word.startswith("--")]
        shown = subprocess.run(
            [Path(sys.executable).parent / program[0], *program[1:], "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert all(option in shown.stdout for option in options)


def steps() -> list[dict[str, Any]]:
    """All steps of all workflows."""
    jobs = [job for workflow in WORKFLOWS.values() for job in workflow["jobs"].values()]
    return [step for job in jobs for step in job["steps"]]


def test_workflows_run_targets_of_the_makefile_and_nothing_else() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = [step["run"] for step in steps() if "run" in step]
    assert {"make check", "make test"} <= set(commands)
    assert {command.removeprefix("make ") for command in commands} <= targets


def test_workflows_test_each_python_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [name.rpartition(" ")[2] for name in project["classifiers"] if ":: 3." in name]
    matrix = WORKFLOWS["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python-version"] == versions
    assert project["requires-python"] == f">={versions[0]}"
