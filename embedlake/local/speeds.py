"""Measured speeds, kept in the settings' home: ``embedlake bench`` writes, plans read."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan
from embedding_core.runs.embed.units import work_units
from embedlake.local.small_work import LOADING_SECONDS, is_small
from embedlake.settings import Settings

SECONDS_PER_HOUR = 3_600


def keep(settings: Settings, space_id: str, tokens_per_second: float) -> None:
    """Remember what a model does on this machine, over what was measured before."""
    path = _path(settings, space_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"tokens_per_second": tokens_per_second}))


def estimated(planned: Plan, recipe: Recipe, resources: Resources, settings: Settings) -> Plan:
    """The plan with the time that its run takes, the start on Ray or in this process included.

    The rate is that of the table's earlier runs; before the first run, the model's measured rate.
    """
    if planned.estimated_tokens is None:
        return planned  # to cut it into units, its files would have to be read
    path = _path(settings, planned.space_id)
    if planned.work_seconds is None and path.exists():
        rate = json.loads(path.read_text())["tokens_per_second"]
        planned = replace(planned, work_seconds=planned.estimated_tokens / rate)
    units = list(islice(work_units(planned, resources.bytes_per_unit, recipe.source), 2))
    if is_small(planned, units, recipe, resources, settings):
        planned = replace(planned, starting_seconds=LOADING_SECONDS)
    return planned


def cost(seconds: float | None, settings: Settings) -> float | None:
    """What that time costs at the settings' price; None when either is unknown."""
    if seconds is None or settings.price_per_hour is None:
        return None
    return seconds * settings.price_per_hour / SECONDS_PER_HOUR


def _path(settings: Settings, space_id: str) -> Path:
    return settings.home / "speed" / f"{space_id[:SHOWN_DIGITS]}.json"
