"""Measured speeds, kept in the settings' home: ``embedlake bench`` writes, plans read."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedding_core.identity import SHOWN_DIGITS
from embedding_core.pipeline.estimate import STARTING_SECONDS
from embedding_core.records import Plan
from flows.settings import Settings

if TYPE_CHECKING:  # it loads torch, which only `bench` needs
    from embedding_core.encoder.measure import ModelSpeed

SECONDS_PER_HOUR = 3_600


def keep(settings: Settings, space_id: str, speed: ModelSpeed) -> None:
    """Remember what a model does on this machine, over what was measured before."""
    path = _path(settings, space_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(speed)))


def estimated(planned: Plan, settings: Settings) -> Plan:
    """The plan with a time at the model's measured rate, when its table has no rate of its own."""
    path = _path(settings, planned.space_id)
    if planned.estimated_seconds is not None or not path.exists():
        return planned
    rate = json.loads(path.read_text())["tokens_per_second"]
    seconds = STARTING_SECONDS + planned.estimated_tokens / rate
    return replace(planned, estimated_seconds=seconds)


def cost(seconds: float | None, settings: Settings) -> float | None:
    """What that time costs at the settings' price; None when either is unknown."""
    if seconds is None or settings.price_per_hour is None:
        return None
    return seconds * settings.price_per_hour / SECONDS_PER_HOUR


def _path(settings: Settings, space_id: str) -> Path:
    return settings.home / "speed" / f"{space_id[:SHOWN_DIGITS]}.json"
