"""The container files name only what exists; no engine builds them here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "infra" / "Dockerfile").read_text()
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
