"""Child processes that begin at the same moment."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from experiments.faults.child import Child, Ending


def children_at_once(actions: Sequence[Callable[[], Any]]) -> list[Child]:
    """A child for each action; none begins before all are there."""
    gate, key = os.pipe()

    def behind_the_gate(action: Callable[[], Any]) -> Any:
        os.close(key)
        os.read(gate, 1)  # returns when no process has the key any more
        return action()

    children = [Child(partial(behind_the_gate, action)) for action in actions]
    os.close(key)
    os.close(gate)
    return children


def at_once(actions: Sequence[Callable[[], Any]]) -> list[Ending]:
    """How the actions ended, each in a child."""
    return [child.ending() for child in children_at_once(actions)]
