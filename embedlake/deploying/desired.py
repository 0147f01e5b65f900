"""The deployments and automations that a recipe and its file ask for, checked before anything is
changed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
from prefect import Flow
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import construct_schedule
from prefect.events.schemas.deployment_triggers import DeploymentTriggerTypes
from pydantic import TypeAdapter

from embedding_core.errors import UsageError
from embedding_core.exports.spec import ExportSpec
from embedding_core.recipe import Recipe, Resources
from embedding_core.store import storage
from embedlake.deploying.deploy_file import DeployFile, DeploymentSpec, ScheduleSpec
from embedlake.deploying.guards import HEARTBEAT, automation_of, automation_values
from embedlake.deploying.items import Item, in_order
from embedlake.deploying.pools import Template, check_job_variables
from embedlake.environment import PREFECT_PATIENCE
from embedlake.orchestration.events import ANNOUNCED, FINETUNED, RESOURCE

ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)
"""Intervals are counted from here, so that the same file always means the same moments."""
HEARTBEAT_SECONDS = "30"
"""How often a run shows that it lives, where an automation listens for that."""
SETTLING_SECONDS = 15
"""A run that an announcement starts waits so long: of models announced in a row the last counts."""
DEFAULT_PARAMETERS: Mapping[str, Mapping[str, Any]] = {
    "export": {"spec": {"to": "parquet"}, "overwrite": True},
}
PLACEHOLDER = UUID(int=0)
"""Id of a deployment in a trigger before the server has given it an id."""


def owner_tag(recipe: Recipe) -> str:
    """The tag of everything that ``embedlake deploy`` makes for the recipe."""
    return f"embedlake-deploy:{recipe.name}"


def desired_items(
    source: str, recipe: Recipe, file: DeployFile, template: Template, block: UUID | None
) -> list[Item]:
    """Everything that should be there. Raises ``UsageError`` for what Prefect would not take.

    ``source`` is the recipe as the command was given it, ``block`` where messages go.
    """
    tag = owner_tag(recipe)
    guards = [automation_of(name, recipe.name, tag, block)
              for name in file.automations.apply]  # fmt: skip
    hears_heartbeats = any(HEARTBEAT in guard.values["trigger"].get("after", ())
                           for guard in guards)  # fmt: skip
    env = dict(PREFECT_PATIENCE)
    if hears_heartbeats:
        env["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] = HEARTBEAT_SECONDS
    items = [Item("work pool", file.pool.name, {"type": file.pool.type}), *guards]
    for flow_name, spec in file.deployments.items():
        where = f"deployments.{flow_name}"
        variables: dict[str, Any] = {"env": env}
        for layer in (file.job_variables, spec.job_variables):
            variables = _merged(variables, layer)
        check_job_variables(variables, template, file.pool, where)
        flow = flow_called(flow_name)
        parameters = {"recipe": _recipe_parameter(source, recipe, file),
                      **DEFAULT_PARAMETERS.get(flow_name, {}), **spec.parameters}  # fmt: skip
        check_parameters(flow, parameters, spec, where)
        name = f"{flow_name}/{recipe.name}"
        items.append(
            Item(
                "deployment",
                name,
                {
                    "description": flow.description,
                    "entrypoint": f"embedlake.flows.{flow_name}.{flow_name}",
                    "parameters": parameters,
                    "parameter_schema": parameter_schema(flow),
                    "schedules": in_order(
                        _schedule(schedule, where) for schedule in spec.schedules
                    ),
                    "concurrency": spec.concurrency and spec.concurrency.model_dump(mode="json"),
                    "tags": sorted({tag, *file.tags, *spec.tags}),
                    "work_pool": file.pool.name,
                    "job_variables": variables,
                },
            )
        )
        items.extend(_triggers(flow_name, name, recipe.name, spec, tag))
    return items


def flow_called(name: str) -> Flow[..., Any]:
    """A flow as the wheel has it."""
    flow: Flow[..., Any] = getattr(import_module(f"embedlake.flows.{name}"), name)
    return flow


def parameter_schema(flow: Flow[..., Any]) -> dict[str, Any]:
    """The JSON schema of a flow's parameters, which the server holds every run against.

    ``resources`` and ``spec``, which are any mapping to the flow, are described in full.
    """
    schema: dict[str, Any] = flow.parameters.model_dump(mode="json")
    for name, section in (("resources", Resources), ("spec", ExportSpec)):
        if (before := schema["properties"].get(name)) is not None:
            described = section.model_json_schema()
            if name not in schema["required"]:
                described = {"anyOf": [described, {"type": "null"}], "default": None}
            title = {
                key: before[key] for key in ("title", "position", "description") if key in before
            }
            schema["properties"][name] = described | title
    return schema


def check_parameters(
    flow: Flow[..., Any], parameters: Mapping[str, Any], spec: DeploymentSpec, where: str
) -> None:
    """Raise ``UsageError`` for parameters that the flow does not take, and for those that runs of
    a schedule lack."""
    schema = parameter_schema(flow)
    for values in (parameters, *(schedule.parameters for schedule in spec.schedules)):
        problems = [*_unknown(values, schema), *_wrong(values, schema)]
        if problems:
            raise UsageError(f"{where}.parameters: {'; '.join(problems)}")
    for schedule in spec.schedules:
        lacking = set(schema["required"]) - parameters.keys() - schedule.parameters.keys()
        if lacking:
            raise UsageError(
                f"{where} has a schedule and no {', '.join(sorted(lacking))}; write it under "
                f"{where}.parameters"
            )


def _unknown(parameters: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    names = list(schema["properties"])
    for name in parameters:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the flow takes {', '.join(names)}"
            yield f"unknown parameter {name!r}; {hint}"


def _wrong(parameters: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(parameters.get("resources"), Mapping):
        Resources().updated(parameters["resources"])
    if isinstance(parameters.get("spec"), Mapping):
        ExportSpec.of(parameters["spec"])
    properties = {key: value for key, value in schema.items() if key != "required"}
    for error in jsonschema.Draft202012Validator(properties).iter_errors(parameters):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


def _recipe_parameter(source: str, recipe: Recipe, file: DeployFile) -> str | dict[str, Any]:
    """What a run is given, so that a worker finds the recipe."""
    is_text = source.lstrip().startswith("{")
    is_on_store = not is_text and not storage.is_local(source)
    if file.recipe is None:
        inline = is_text or not (is_on_store or file.pool.type == "process")
    else:
        inline = file.recipe == "inline"
    if inline:
        content: dict[str, Any] = recipe.model_dump(mode="json")
        return content
    return file.recipe or storage.absolute(source, Path.cwd())


def _schedule(spec: ScheduleSpec, where: str) -> dict[str, Any]:
    """A schedule as the server keeps it."""
    try:
        schedule = construct_schedule(
            interval=spec.interval,
            anchor_date=None if spec.interval is None else ANCHOR,
            cron=spec.cron,
            rrule=spec.rrule,
            timezone=spec.timezone,
        )
    except ValueError as error:
        rule = spec.cron or spec.rrule or spec.interval
        raise UsageError(f"{where}.schedules: {rule!r} in {spec.timezone}: {error}") from error
    create = DeploymentScheduleCreate(
        schedule=schedule, active=spec.active, parameters=spec.parameters
    )
    return create.model_dump(mode="json", include={"schedule", "active", "parameters"})


def _triggers(
    flow_name: str, name: str, recipe_name: str, spec: DeploymentSpec, tag: str
) -> Iterator[Item]:
    """The automations that start runs of a deployment on events."""
    written = spec.triggers
    if written is None:
        written = (_announcements(recipe_name),) if flow_name == "reembed" else ()
    for number, content in enumerate(written, 1):
        try:
            trigger = TypeAdapter(DeploymentTriggerTypes).validate_python(dict(content))
        except ValueError as error:
            raise UsageError(f"deployments.{flow_name}.triggers: {error}") from error
        trigger.set_deployment_id(PLACEHOLDER)
        values = automation_values(trigger.as_automation().model_dump(mode="json"))
        for action in values["actions"]:
            action["deployment"] = name
        yield Item("automation", f"{name}: trigger {number}", values | {"tags": [tag]})


def _announcements(recipe_name: str) -> dict[str, Any]:
    """The trigger that hears of models announced to all tables, and to this recipe's."""
    return {
        "type": "event",
        "match": {"prefect.resource.id": [RESOURCE, f"{RESOURCE}.{recipe_name}"]},
        "expect": [FINETUNED],
        "parameters": {
            "model": "{{ event.payload.model }}",
            ANNOUNCED: "{{ event.occurred | string }}",
        },
        "schedule_after": SETTLING_SECONDS,
    }


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Job variables of both, the second's over the first's; so are variables of ``env``."""
    merged = {**first, **second}
    if isinstance(first.get("env"), Mapping) and isinstance(second.get("env"), Mapping):
        merged["env"] = {**first["env"], **second["env"]}
    return merged
