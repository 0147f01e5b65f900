"""Scripts of engines, and workflows: they name only what exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text())
    for path in (ROOT / ".github" / "workflows").glob("*.yml")
}


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


def steps() -> list[dict[str, Any]]:
    """All steps of all workflows."""
    jobs = [job for workflow in WORKFLOWS.values() for job in workflow["jobs"].values()]
    return [step for job in jobs for step in job["steps"]]


def test_workflows_run_targets_of_the_makefile_and_nothing_else() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = [step["run"] for step in steps() if "run" in step]
    assert {"make check", "make test"} <= set(commands)
    assert {command.removeprefix("make ") for command in commands} <= targets


def test_workflows_name_actions_by_hash_with_their_version() -> None:
    texts = [(ROOT / ".github" / "workflows" / name).read_text() for name in WORKFLOWS]
    actions = [line for text in texts for line in re.findall(r"uses: (.*)", text)]
    assert len(actions) == len([step for step in steps() if "uses" in step])
    assert [
        name for name in actions if not re.fullmatch(r"\S+@[0-9a-f]{40}  # v[\d.]+", name)
    ] == []


def test_workflows_test_each_python_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = [name.rpartition(" ")[2] for name in project["classifiers"] if ":: 3." in name]
    matrix = WORKFLOWS["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python-version"] == versions
    assert project["requires-python"] == f">={versions[0]}"


def test_workflows_follow_the_schema_of_github() -> None:
    files = [f".github/workflows/{name}" for name in WORKFLOWS]
    check = Path(sys.executable).parent / "check-jsonschema"
    command = [check, "--builtin-schema", "vendor.github-workflows", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_audit_runs_by_itself_keeps_its_list_and_passes_over_nothing() -> None:
    workflow = WORKFLOWS["audit.yml"]
    assert workflow[True]["schedule"]  # YAML reads the key `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    steps = workflow["jobs"]["audit"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make audit"]
    assert steps[-1]["with"]["path"] == "build/sbom.json"
    makefile = (ROOT / "Makefile").read_text()
    assert "pip-audit --strict" in makefile  # a package that cannot be looked up is a failure
    assert re.search(r"AUDITORS := pip-audit==\S+ cyclonedx-bom==\S+", makefile)
