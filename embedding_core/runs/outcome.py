"""How a run, a judgement or a look at a table can end, and the exit code that a command gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Outcome = Literal["done", "failed", "rejected", "refused"]
"""``rejected``: finished with more rejects than the recipe tolerates; ``refused``: the gate said
no."""

EXIT_CODES: Mapping[str, int] = {"done": 0, "failed": 1, "rejected": 3, "refused": 4}
"""The command line's. 2, for a wrong recipe or command, is no outcome of a run."""
