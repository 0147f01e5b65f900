"""Runs the commands of a page in a folder of its own, in this process where that can be.

``embedlake`` is called in this process, and embeds without Prefect and Ray; all behind it is real.
What else a line calls, a shell runs.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from embedding_core.recipe import Recipe, Resources
from embedding_core.reports.run import RunView
from embedding_core.runs.embed.execution import InProcess
from embedding_core.runs.embed.run import EmbedRun
from embedlake.cli.options import say
from tests.embedlake.conftest import Embedlake

ROOT = Path(__file__).resolve().parents[1]
CHECKOUT = ("deployments", "examples", "infra", "tests")
"""Folders of the checkout that a page's commands name."""


class Shell:
    """A folder that looks like a checkout, and the commands that are run in it."""

    def __init__(self, folder: Path, embedlake: Embedlake, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._embedlake, self._patch = embedlake, patch
        for name in CHECKOUT:
            (folder / name).symlink_to(ROOT / name)
        patch.chdir(folder)
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        patch.setattr("embedlake.cli.embed.use_or_start_api", lambda _settings: None)
        patch.setattr("embedlake.cli.embed.run_flow", _embedded_here)

    def run(self, line: str) -> str:
        """What a line prints. Fails when a command of it does."""
        words = shlex.split(line, comments=True)
        if words[0] == "cd":
            self._patch.chdir(words[1])
            return ""
        if words[0] == "export":
            for word in words[1:]:
                self._patch.setenv(*word.split("=", 1))
            return ""
        calls = _calls(words)
        if calls is None:
            return self._in_bash(line)
        return "".join(self._call(call) for call in calls)

    def _call(self, words: Sequence[str]) -> str:
        left, target = list(words), None
        if ">" in left:
            *left, _, target = left
        with pytest.MonkeyPatch.context() as patch:
            while "=" in left[0]:
                patch.setenv(*left.pop(0).split("=", 1))
            answer = self._embedlake(*left[1:])
        assert answer.code in (0, 3), f"{shlex.join(left)}\n{answer.err}{answer.out}"
        if target is not None:
            Path(target).write_text(answer.out)
            return answer.err
        return answer.err + answer.out

    def _in_bash(self, line: str) -> str:
        answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert answer.returncode == 0, f"{line}\n{answer.stderr}"
        return answer.stdout


def _calls(words: Sequence[str]) -> list[list[str]] | None:
    """The calls of ``embedlake`` that a line is made of; None where it is more than that."""
    calls: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            calls.append([])
        else:
            calls[-1].append(word)
    programs = [next((word for word in call if "=" not in word), "") for call in calls]
    is_plain = set(programs) == {"embedlake"} and not {"|", "||", ";"} & set(words)
    return calls if is_plain else None


def _embedded_here(
    entrypoint: str,
    recipe: str,
    resources: Mapping[str, Any],
    allow_removals: bool,
    retry_reasons: Sequence[str],
) -> dict[str, Any]:
    """The report of a run as the flow does it, in this process."""
    assert entrypoint == "embedlake.flows.embed:embed"
    run = EmbedRun(
        recipe=Recipe.load(recipe),
        resources=Resources().updated(dict(resources)),
        execution=InProcess(),
        run_id="page",
        allow_removals=allow_removals,
        retry_reasons=retry_reasons,
    )
    view = RunView(run.to_the_end(time.perf_counter()))
    say(view.lines())  # which the flow has in its log
    return view.data()
