"""The file beside a recipe that says how Prefect runs it: ``articles.deploy.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from embedding_core.errors import UsageError
from embedding_core.recipe.explain import explain
from embedding_core.recipe.section import Section
from embedding_core.recipe.yaml_values import StrictLoader
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec

SUFFIX = ".deploy.yaml"
FLOWS = ("embed", "reembed", "evaluate", "maintain", "export", "report")
"""The flows that a recipe's deployments run."""
PoolType = Literal["process", "docker", "kubernetes"]


class PoolSpec(Section):
    """The work pool whose workers start the runs."""

    name: str = "embedlake"
    """``embedlake up`` starts a worker for the pool ``embedlake``."""
    type: PoolType = "process"
    """What a worker of the pool starts for a run. A pool that is not there is made."""


class ScheduleSpec(Section):
    """When runs start by themselves: ``cron``, ``interval`` or ``rrule``."""

    cron: str | None = None
    """Five fields, as for cron: ``17 3 * * *`` is every night at 3:17."""
    interval: int | None = Field(default=None, ge=1)
    """Seconds from a run to the next."""
    rrule: str | None = None
    """A recurrence rule of iCalendar: ``FREQ=WEEKLY;BYDAY=MO``."""
    timezone: str = "UTC"
    """Name of the time zone that ``cron`` and ``rrule`` are read in."""
    active: bool = True
    """``false`` keeps the schedule and starts nothing."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Parameters of these runs alone, over those of the deployment."""

    @model_validator(mode="after")
    def _exactly_one_rule(self) -> Self:
        if sum(rule is not None for rule in (self.cron, self.interval, self.rrule)) != 1:
            raise ValueError("a schedule has exactly one of cron, interval and rrule")
        return self


class ConcurrencySpec(Section):
    """How many runs of a deployment may run at once, and what happens to one too many."""

    limit: int = Field(default=1, ge=1)
    """Runs at once."""
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    """``ENQUEUE``: it waits. ``CANCEL_NEW``: it ends as cancelled."""


class DeploymentSpec(Section):
    """How a flow runs for the recipe."""

    parameters: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the flow beside ``recipe``."""
    schedules: tuple[ScheduleSpec, ...] = ()
    """When runs start by themselves."""
    triggers: tuple[dict[str, Any], ...] | None = None
    """Events that start a run, as in ``prefect.yaml``; default: ``reembed`` listens to announced
    models, the others to nothing."""
    concurrency: ConcurrencySpec | None = ConcurrencySpec()
    """Default: one run at a time, the others wait; ``null``: no limit."""
    tags: tuple[str, ...] = ()
    """Tags of this deployment's runs, beside those of the file."""
    job_variables: dict[str, Any] = Field(default_factory=dict)
    """Job variables of this deployment, over those of the file."""


class AutomationSpec(Section):
    """What Prefect does when a run of the recipe ends badly, comes late or dies."""

    apply: tuple[str, ...]
    """Names of automations that embedlake ships (``failed``, ``locked``, ``refused``, ``late``,
    ``dead``), or paths of YAML files of the same form, relative to this file."""
    notify: str | None = None
    """The Prefect block that messages go to: ``slack-webhook/operations``."""


class DeployFile(Section):
    """The whole file; without a file each flow has a deployment without a schedule."""

    pool: PoolSpec = PoolSpec()
    """Where runs start."""
    recipe: str | None = None
    """What runs are given: an absolute path or an ``s3://`` URI as the workers see it, or
    ``inline``: the recipe itself. Default: the recipe's own path for a process pool and for a
    recipe on a store, else ``inline``."""
    tags: tuple[str, ...] = ()
    """Tags of every deployment's runs."""
    job_variables: dict[str, Any] = Field(default_factory=dict)
    """Job variables of every deployment: ``env``, ``image``, and what else the pool takes."""
    deployments: dict[str, DeploymentSpec] = Field(
        default_factory=lambda: {flow: DeploymentSpec() for flow in FLOWS}
    )
    """Deployments by flow: ``embed``, ``reembed``, ``evaluate``, ``maintain``, ``export``,
    ``report``. A flow that is left out loses the deployment that an earlier ``embedlake deploy``
    made."""
    automations: AutomationSpec = AutomationSpec(apply=())
    """Automations over all runs of the recipe."""

    @field_validator("deployments", mode="before")
    @classmethod
    def _empty_means_defaults(cls, deployments: Any) -> Any:
        if not isinstance(deployments, dict):
            return deployments
        unknown = sorted(map(str, deployments.keys() - set(FLOWS)))
        if unknown:
            raise ValueError(f"no flow is called {', '.join(unknown)}; use {', '.join(FLOWS)}")
        return {flow: {} if spec is None else spec for flow, spec in deployments.items()}

    @field_validator("recipe")
    @classmethod
    def _same_on_every_machine(cls, recipe: str | None) -> str | None:
        if recipe is None or recipe == "inline" or not storage.is_local(recipe):
            return recipe
        if not Path(recipe).is_absolute():
            raise ValueError(
                f"{recipe!r} is relative, and a worker has another working directory; write an "
                "absolute path, an s3:// URI or inline"
            )
        return recipe


def path_beside(recipe: str) -> str | None:
    """Where the file of a recipe is looked for; None for a recipe that is no file."""
    if recipe.lstrip().startswith("{"):
        return None
    uri = storage.absolute(recipe, Path.cwd())
    stem = uri.removesuffix(".yaml").removesuffix(".yml")
    return stem + SUFFIX


def read_deploy_file(recipe: str, path: str | None) -> DeployFile:
    """The file at ``path``, else the file beside the recipe, else the defaults.

    Raises ``UsageError`` with everything that is wrong with it.
    """
    uri = path_beside(recipe) if path is None else storage.absolute(path, Path.cwd())
    if uri is None:
        return DeployFile()
    try:
        content = yaml.load(storage.read_bytes(uri, StorageSpec()), StrictLoader)
    except FileNotFoundError as error:
        if path is None:
            return DeployFile()
        raise UsageError(f"no file at {uri}; give the path of a YAML file") from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {uri}: {error}; correct the file") from error
    try:
        read = DeployFile.model_validate({} if content is None else content)
    except ValidationError as error:
        raise explain(error, uri, DeployFile, action=None) from error
    return read.model_copy(update={"automations": _absolute(read.automations, uri)})


def _absolute(automations: AutomationSpec, uri: str) -> AutomationSpec:
    """The same automations, with paths that do not depend on a working directory."""
    folder = uri.rpartition("/")[0]
    paths = tuple(
        _beside(folder, name) if name.endswith((".yaml", ".yml")) else name
        for name in automations.apply
    )
    return automations.model_copy(update={"apply": paths})


def _beside(folder: str, path: str) -> str:
    if storage.is_local(folder) or not storage.is_local(path):
        return storage.absolute(path, Path(folder))
    return storage.join(folder, path)
