"""How a flow ends that failed for a reason it knows."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Failed

from embedding_core.errors import EmbedlakeError, Locked


def failed(error: EmbedlakeError) -> State[Any]:
    """A state that says what to do. Raised instead, the error would stand in the log below fifty
    lines of where it came from, which are worth reading for errors that nobody foresaw alone."""
    name = "Locked" if isinstance(error, Locked) else None
    return Failed(name=name, message=str(error), data=error)
