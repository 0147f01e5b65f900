"""Real runs: a command, or one that a Prefect worker starts for a deployment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from functools import cache
from typing import Any, Protocol

import httpx
import yaml

from benchmarks.machine import ROOT
from experiments.faults.child import Ending
from experiments.orchestration.services import BIN
from experiments.orchestration.stage import RESOURCES, ServedStage, wait_until

LONGEST_SECONDS = 240.0
"""A run that takes longer hangs."""
BUSY_SECONDS = 60.0
SHOWN = 800
"""Characters of what a run said last."""
OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
"""Types of the states in which a flow run has ended."""


class Run(Protocol):
    """A run that was started."""

    @property
    def is_over(self) -> bool: ...

    def ending(self) -> Ending:
        """Wait for the end; a run that takes too long is a hang."""
        ...


class CommandRun:
    """``embedlake embed`` in a session of its own."""

    def __init__(self, stage: ServedStage, **changes: int) -> None:
        self._log = (stage.folder / "run.log").open("w+")
        self._answer = (stage.folder / "run.json").open("w+")
        self.process = subprocess.Popen(
            stage.command(**changes),
            cwd=ROOT,
            env=os.environ | stage.services.environment,
            stdin=subprocess.DEVNULL,
            stdout=self._answer,
            stderr=self._log,
            start_new_session=True,
        )

    @property
    def is_over(self) -> bool:
        """See ``Run``."""
        return self.process.poll() is not None

    def interrupt(self) -> None:
        """Ctrl-C, which goes to every process of a terminal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def ending(self, longest_seconds: float = LONGEST_SECONDS) -> Ending:
        """See ``Run``. A run that hangs is killed, with what it started."""
        is_hang = False
        try:
            self.process.wait(longest_seconds)
        except subprocess.TimeoutExpired:
            is_hang = True
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        with self._log, self._answer:
            self._log.seek(0)
            self._answer.seek(0)
            said, answer = self._log.read()[-SHOWN:], self._answer.read()
        status = self.process.returncode
        if is_hang:
            return Ending(status, error=f"Hang: {said}", is_hang=True)
        return Ending(status, error=f"{_kind(answer, status)}: {said}" if status > 0 else "")


def _kind(answer: str, status: int) -> str:
    """How a command says that it ended."""
    try:
        said = json.loads(answer)
    except ValueError:
        said = {}
    return str(said.get("kind") or said.get("outcome") or f"status {status}")


class DeployedRun:
    """A flow run of the stage's deployment."""

    def __init__(self, stage: ServedStage) -> None:
        self._api = stage.services.api_url
        made = self._post(f"/deployments/{_deployed(stage)}/create_flow_run", {})
        self._id = str(made["id"])

    @property
    def state(self) -> dict[str, Any]:
        """Its state, as the API says."""
        answer = httpx.get(f"{self._api}/flow_runs/{self._id}", timeout=30)
        state: dict[str, Any] = answer.raise_for_status().json()["state"]
        return state

    @property
    def is_over(self) -> bool:
        """See ``Run``."""
        return self.state["type"] in OVER

    def cancel(self) -> None:
        """Ask the API to end it."""
        self._post(f"/flow_runs/{self._id}/set_state", {"state": {"type": "CANCELLING"}})

    def ending(self) -> Ending:
        """See ``Run``."""
        is_over = wait_until(lambda: self.is_over, LONGEST_SECONDS)
        state = self.state
        if not is_over:
            return Ending(1, error=f"Hang: it is {state['type']}", is_hang=True)
        if state["type"] == "COMPLETED":
            return Ending(0)
        return Ending(1, error=f"{state['name']}: {state['message']}")

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the API answers, which may be busy for a while."""

        def is_taken() -> bool:
            answers.append(httpx.post(f"{self._api}{path}", json=body, timeout=60))
            return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

        answers = list[httpx.Response]()
        wait_until(is_taken, BUSY_SECONDS)
        made: dict[str, Any] = answers[-1].raise_for_status().json()
        return made


@cache
def _deployed(stage: ServedStage) -> str:
    """Id of the stage's deployment, which is made when it is first asked for."""
    embed = {"parameters": {"resources": RESOURCES}, "concurrency": None}
    content = {"recipe": "inline", "deployments": {"embed": embed}}
    stage.recipe_path.with_suffix(".deploy.yaml").write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [str(BIN / "embedlake"), "deploy", str(stage.recipe_path)],
        cwd=ROOT,
        env=os.environ | stage.services.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"cannot deploy: {done.stderr[-SHOWN:]}")
    url = f"{stage.services.api_url}/deployments/name/embed/{stage.recipe.name}"
    return str(httpx.get(url, timeout=60).raise_for_status().json()["id"])
