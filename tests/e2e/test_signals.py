"""A run that is stopped by a signal in the middle of a stage: a real process, and what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from embedding_core.recipe import Recipe
from tests import waiting
from tests.driver import rejects, write_jsonl
from tests.e2e.conftest import DONE, FAILED, ROOT, Commands, wait_for
from tests.e2e.recipes import write_recipe

pytestmark = pytest.mark.e2e

SECONDS = 300.0
LAST_LINE = "stopped. What was committed is kept; the same command goes on where this ended"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a run is when the signal comes."""

    has_begun: Callable[[Path], bool]
    """Whether a run into this lake is there."""
    documents: int
    """Per file."""
    files: int
    pieces: int
    """Encoded before the run waits in this stage."""
    arguments: tuple[str, ...] = ()


CHUNK = Stage(lambda lake: any((lake / "_embedlake/docs/staged").glob("*/*")), 40, 20, 0)
COMMIT = Stage(
    lambda lake: len(list((lake / "docs.lance/_versions").glob("*"))) >= 3, 3, 8, 4,
    ("--set", "unit_bytes=1", "--set", "units_per_commit=1"),
)  # fmt: skip
MODEL = {"name": waiting.NAME}


@pytest.mark.parametrize(
    ("stage", "how", "ray"),
    [
        pytest.param(CHUNK, signal.SIGTERM, "", id="chunk stage, SIGTERM, in its process"),
        pytest.param(COMMIT, signal.SIGTERM, "local", id="commit stage, SIGTERM, on Ray"),
        pytest.param(COMMIT, signal.SIGINT, "local", id="commit stage, Ctrl-C, on Ray"),
    ],
)
def test_embed_stopped_by_a_signal_keeps_what_it_committed_and_the_next_run_does_the_rest(
    commands: Commands, pieces: waiting.Pieces, tmp_path: Path, stage: Stage, how: signal.Signals,
    ray: str,
) -> None:  # fmt: skip
    for number in range(stage.files):
        texts = {
            f"{number}-{n}": f"text {number} {n} " + "word " * 200 for n in range(stage.documents)
        }
        write_jsonl(tmp_path, f"{number:02}.jsonl", texts)
    path = write_recipe(tmp_path, model=MODEL)
    stopped = stop(commands, pieces, path, stage, by(how), ray)
    assert stopped.code == 128 + how
    assert stopped.err.splitlines()[-1] == LAST_LINE and "Traceback" not in stopped.err
    assert json.loads(stopped.out) == {"error": LAST_LINE, "kind": "KeyboardInterrupt"}
    assert stopped.still_alive == []
    (record,) = (tmp_path / "lake/_embedlake/docs/lock").glob("*.json")
    assert json.loads(record.read_bytes())["given_back"], "the next run need not wait"
    tagged = {
        "flow_runs": {"tags": {"all_": ["table:docs"]}},
        "sort": "START_TIME_DESC",
        "limit": 1,
    }
    (run,) = commands.api("/flow_runs/filter", tagged)
    assert run["state_type"] in ("CRASHED", "CANCELLED")

    pieces.allow_all()
    engine = pieces.environment
    again = commands.run("embedlake", "embed", str(path), "--json", **engine)
    assert again.code == DONE, again.err
    assert again.json["verification"]["problems"] == []
    assert commands.run("embedlake", "verify", str(path), "--deep", **engine).code == DONE
    assert commands.run("embedlake", "plan", str(path), "--json", **engine).json["nothing_to_do"]


def test_embed_whose_ray_node_dies_fails_for_ray_and_for_no_file(
    commands: Commands, pieces: waiting.Pieces, tmp_path: Path
) -> None:
    for number in range(COMMIT.files):
        write_jsonl(
            tmp_path,
            f"{number:02}.jsonl",
            {f"{number}-{n}": f"text {n}" for n in range(COMMIT.documents)},
        )
    path = write_recipe(tmp_path, model=MODEL)

    def kill_the_raylet(flow: psutil.Process) -> None:
        (raylet,) = (one for one in flow.children(recursive=True) if one.name() == "raylet")
        raylet.kill()

    failed = stop(commands, pieces, path, COMMIT, kill_the_raylet, "local")
    assert failed.code == FAILED
    assert json.loads(failed.out)["kind"] == "Transient"
    assert (
        "Ray broke down during the run" in failed.err and "What was committed is kept" in failed.err
    )
    assert not rejects(Recipe.load(path))
    pieces.allow_all()
    again = commands.run("embedlake", "embed", str(path), "--json", **pieces.environment)
    assert (again.code, again.json["rows"]) == (DONE, COMMIT.files * COMMIT.documents), again.err


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a run ended."""

    code: int
    out: str
    err: str
    still_alive: list[psutil.Process]
    """Processes that it started."""


def by(how: signal.Signals) -> Callable[[psutil.Process], None]:
    """Sends a run a signal; Ctrl-C goes to every process of a terminal."""

    def send(flow: psutil.Process) -> None:
        if how == signal.SIGINT:
            os.killpg(flow.pid, how)
        else:
            flow.send_signal(how)

    return send


def stop(
    commands: Commands, pieces: waiting.Pieces, path: Path, stage: Stage,
    hit: Callable[[psutil.Process], None], ray: str,
) -> Stopped:  # fmt: skip
    """Start a run and hit it when it waits in the stage."""
    pieces.allow(stage.pieces)
    command = [str(Path(sys.executable).parent / "embedlake"), "embed", str(path), "--json"]
    environment = commands.environment | pieces.environment
    environment |= {"EMBEDLAKE_RAY_ADDRESS": ray} if ray else {}
    with subprocess.Popen(
        [*command, *stage.arguments], cwd=ROOT, env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as flow:  # fmt: skip
        wait_for(lambda: stage.has_begun(path.parent / "lake") or flow.poll() is not None)
        family = psutil.Process(flow.pid).children(recursive=True)
        hit(psutil.Process(flow.pid))
        out, err = flow.communicate(timeout=SECONDS)
    _, alive = psutil.wait_procs(family, timeout=SECONDS)
    return Stopped(flow.returncode, out, err, alive)
