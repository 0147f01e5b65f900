"""Read what an earlier ``embedlake deploy`` made from a Prefect server, and change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound

from embedding_core.errors import UsageError
from embedlake.deploying.deploy_file import FLOWS
from embedlake.deploying.desired import flow_called
from embedlake.deploying.guards import automation_values
from embedlake.deploying.items import Change, Item, in_order
from embedlake.deploying.pools import Template


def work_pool(client: SyncPrefectClient, name: str) -> WorkPool | None:
    """A work pool by its name; None when there is no such pool."""
    try:
        return client.read_work_pool(name)
    except ObjectNotFound:
        return None


def block_id(client: SyncPrefectClient, name: str | None) -> UUID | None:
    """Id of the block ``type/name``. Raises ``UsageError`` for one that is not there."""
    if name is None:
        return None
    block_type, _, block_name = name.partition("/")
    try:
        return client.read_block_document_by_name(block_name, block_type, False).id
    except ObjectNotFound as error:
        raise UsageError(
            f"automations.notify: Prefect has no block {name!r}; make it on its page under Blocks, "
            "or name another as type/name (`prefect block ls` lists them)"
        ) from error


def existing_items(
    client: SyncPrefectClient, recipe_name: str, tag: str, pool: WorkPool | None
) -> list[Item]:
    """What is there for a recipe. A work pool counts though nobody tagged it: none is removed.

    Raises ``UsageError`` for a deployment of that name that somebody else made.
    """
    items = [] if pool is None else [Item("work pool", pool.name, {"type": pool.type})]
    named = DeploymentFilter(name=DeploymentFilterName(any_=[recipe_name]))
    names: dict[UUID, str] = {}
    for deployment in client.read_deployments(deployment_filter=named):
        name = f"{client.read_flow(deployment.flow_id).name}/{deployment.name}"
        names[deployment.id] = name
        if tag in deployment.tags:
            items.append(Item("deployment", name, _deployment_values(deployment), deployment.id))
        elif name.partition("/")[0] in FLOWS:
            raise UsageError(
                f"there is a deployment {name!r} that `embedlake deploy` did not make (it lacks "
                f"the tag {tag}); delete it, or give the recipe another name"
            )
    for automation in _automations(client, tag):
        values = _with_names(automation, names)
        items.append(Item("automation", automation.name, values, automation.id))
    return items


def _automations(client: SyncPrefectClient, tag: str) -> list[Automation]:
    body = {"automations": {"tags": {"any_": [tag]}}}  # the client's filter is the server's class
    answer = client.request("POST", "/automations/filter", json=body)
    return Automation.model_validate_list(answer.json())


def apply(client: SyncPrefectClient, changes: Sequence[Change], template: Template) -> None:
    """Carry out changes, in their order."""
    for change in changes:
        if change.action == "remove":
            _remove(client, change.item)
        elif change.item.kind == "work pool":
            _make_pool(client, change.item, template)
        elif change.item.kind == "deployment":
            _write_deployment(client, change.item)
        else:
            _write_automation(client, change.item)


def _deployment_values(deployment: DeploymentResponse) -> dict[str, Any]:
    dumped = deployment.model_dump(mode="json")
    limit = deployment.global_concurrency_limit
    options = deployment.concurrency_options
    return {
        "description": deployment.description,
        "entrypoint": deployment.entrypoint,
        "parameters": dumped["parameters"],
        "parameter_schema": dumped["parameter_openapi_schema"],
        "schedules": in_order(
            {key: schedule[key] for key in ("schedule", "active", "parameters")}
            for schedule in dumped["schedules"]
        ),
        "concurrency": limit
        and {
            "limit": limit.limit,
            "collision_strategy": options and options.collision_strategy.value,
        },
        "tags": sorted(deployment.tags),
        "work_pool": deployment.work_pool_name,
        "job_variables": dumped["job_variables"],
    }


def _with_names(automation: Automation, names: Mapping[UUID, str]) -> dict[str, Any]:
    """An automation's values, with the names of deployments instead of their ids."""
    values = automation_values(automation.model_dump(mode="json"))
    for action, said in zip(automation.actions, values["actions"], strict=True):
        deployment = getattr(action, "deployment_id", None)
        if deployment is not None:
            said["deployment"] = names.get(deployment)
    return values


def _remove(client: SyncPrefectClient, item: Item) -> None:
    assert item.id is not None, "what is removed has been read from the server"
    if item.kind == "deployment":
        client.delete_deployment(item.id)
    else:
        client.delete_automation(item.id)


def _make_pool(client: SyncPrefectClient, item: Item, template: Template) -> None:
    client.create_work_pool(
        WorkPoolCreate(name=item.name, type=item.values["type"], base_job_template=template)
    )


def _write_deployment(client: SyncPrefectClient, item: Item) -> None:
    """Create a deployment or write over it; the request is the same, and schedules that it does
    not name go."""
    values = item.values
    flow_name, _, name = item.name.partition("/")
    concurrency = values["concurrency"] or {}
    strategy = concurrency.get("collision_strategy")
    body = {
        "flow_id": str(client.create_flow(flow_called(flow_name))),
        "name": name,
        "description": values["description"],
        "entrypoint": values["entrypoint"],
        "parameters": values["parameters"],
        "parameter_openapi_schema": values["parameter_schema"],
        "enforce_parameter_schema": True,
        "schedules": values["schedules"],
        "concurrency_limit": concurrency.get("limit"),
        "concurrency_options": strategy and {"collision_strategy": strategy},
        "tags": values["tags"],
        "work_pool_name": values["work_pool"],
        "job_variables": values["job_variables"],
        "pull_steps": [],
    }
    client.request("POST", "/deployments/", json=body)


def _write_automation(client: SyncPrefectClient, item: Item) -> None:
    """Create an automation, or replace it."""
    values = dict(item.values)
    values["actions"] = [_with_id(client, action) for action in values["actions"]]
    automation = AutomationCore.model_validate({"name": item.name, **values})
    if item.id is None:
        client.create_automation(automation)
    else:
        client.update_automation(item.id, automation)


def _with_id(client: SyncPrefectClient, action: Mapping[str, Any]) -> dict[str, Any]:
    if "deployment" not in action:
        return dict(action)
    rest = {key: value for key, value in action.items() if key != "deployment"}
    deployment = client.read_deployment_by_name(action["deployment"])
    return {**rest, "deployment_id": str(deployment.id)}
