"""Automations over a recipe's runs, from files: what ends badly, comes late or dies."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml
from prefect.events.schemas.automations import AutomationCore
from pydantic import ValidationError

from embedding_core.errors import UsageError
from embedding_core.recipe.yaml_values import StrictLoader
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec
from embedlake.deploying.items import Item

HEARTBEAT = "prefect.flow-run.heartbeat"
"""The event by which a run shows that it lives."""
KEPT = ("description", "enabled", "tags", "trigger", "actions", "actions_on_trigger",
        "actions_on_resolve")  # fmt: skip
"""What an automation is, apart from its name and its id."""
SETS = ("after", "expect", "for_each")
"""Keys of a trigger that hold sets."""
TO_A_BLOCK = ("send-notification", "call-webhook")
"""Actions that need a block."""


def shipped_automations() -> list[str]:
    """Names of the automations that embedlake ships."""
    folder = files("embedlake.deployments").joinpath("automations")
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def automation_of(name: str, recipe_name: str, tag: str, block: UUID | None) -> Item:
    """An automation that is shipped or written by a user, for the runs that have the tag.

    The file is an automation of Prefect's without a name; what embedlake adds is the tag that runs
    must have, and the block that messages go to.
    """
    content = _content(name)
    trigger = content.get("trigger")
    if not isinstance(trigger, dict):
        raise UsageError(f"the automation {name} has no trigger; write one as Prefect's docs say")
    trigger["match_related"] = {
        "prefect.resource.id": f"prefect.tag.{tag}",
        "prefect.resource.role": "tag",
    }
    for action in content.get("actions", []):
        if action.get("type") in TO_A_BLOCK and "block_document_id" not in action:
            if block is None:
                raise UsageError(
                    f"the automation {name} sends messages, and automations.notify names no block; "
                    "make one on Prefect's page under Blocks (Slack, e-mail, a webhook …) and "
                    "write its type and name, as in notify: slack-webhook/operations"
                )
            action["block_document_id"] = str(block)
    title = f"{recipe_name}: {Path(name).stem}"
    try:
        automation = AutomationCore.model_validate(content | {"name": title, "tags": [tag]})
    except ValidationError as error:
        raise UsageError(f"the automation {name} cannot be used: {error}") from error
    return Item("automation", title, automation_values(automation.model_dump(mode="json")))


def automation_values(dumped: Mapping[str, Any]) -> dict[str, Any]:
    """An automation without what the server adds: ids of triggers, and of the deployment that a
    run is started of, which its name stands for."""
    values: dict[str, Any] = _comparable({key: dumped[key] for key in KEPT})
    return values


def _comparable(value: Any) -> Any:
    """The same without ids, and with sets, whose order changes from dump to dump, in order."""
    if isinstance(value, dict):
        return {
            key: sorted(inner) if key in SETS else _comparable(inner)
            for key, inner in value.items()
            if key not in ("id", "deployment_id")
        }
    return [_comparable(inner) for inner in value] if isinstance(value, list) else value


def _content(name: str) -> dict[str, Any]:
    """What the file of an automation says."""
    try:
        if name.endswith((".yaml", ".yml")):
            text = storage.read_bytes(name, StorageSpec())
        else:
            folder = files("embedlake.deployments").joinpath("automations")
            text = folder.joinpath(f"{name}.yaml").read_bytes()
        content = yaml.load(text, StrictLoader)
    except FileNotFoundError as error:
        names = ", ".join(shipped_automations())
        raise UsageError(
            f"there is no automation {name!r}; use {names}, or the path of a YAML file"
        ) from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the automation {name}: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"the automation {name} holds no trigger and no actions; write both")
    return content
