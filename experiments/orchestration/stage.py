"""A lake with work to do, a recipe whose encoder waits, and the services that runs of it need."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import yaml

from experiments.faults.stage import Stage, with_work
from experiments.orchestration.services import BIN, Services, shared_services
from tests import waiting

RESOURCES = {"unit_bytes": 1, "units_per_commit": 2}
"""A file per unit and two per commit, as the rig's own runs have."""
POLL_SECONDS = 0.02


class ServedStage(Stage):
    """A stage whose runs are real ones."""

    def __init__(self, folder: Path, services: Services) -> None:
        super().__init__(folder, seed=1, model={"name": waiting.NAME})
        self.services = services
        self.folder = folder
        self.recipe_path = folder / "recipe.yaml"
        self.recipe_path.write_text(yaml.safe_dump(self.recipe.model_dump(mode="json")))

    def put_back(self) -> None:
        """See ``Stage``. Runs of the rig's own processes count with the others."""
        os.environ.update(self.services.pieces.environment)
        super().put_back()

    def close(self) -> None:
        """See ``Stage``."""
        self.services.end()

    def command(self, **changes: int) -> list[str]:
        """The command that does a run; ``changes``: of its resources."""
        settings = [f"{name}={value}" for name, value in (RESOURCES | changes).items()]
        options = [word for setting in settings for word in ("--set", setting)]
        return [str(BIN / "embedlake"), "embed", str(self.recipe_path), "--json", *options]


@cache
def served_stage(folder: Path) -> ServedStage:
    """The stage that experiments on the shared services of a process share; see ``with_work``."""
    return with_work(ServedStage(folder / "stage", shared_services(folder / "services")))


def wait_until(is_so: Callable[[], bool], seconds: float) -> bool:
    """Whether something was so before the seconds were over."""
    deadline = time.monotonic() + seconds
    while not (so := is_so()) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return so
