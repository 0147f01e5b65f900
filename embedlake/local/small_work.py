"""Find work so small that starting Ray would cost more than the work itself."""

from __future__ import annotations

from collections.abc import Sequence

from embedding_core.gpus import n_nvidia_gpus
from embedding_core.recipe import Recipe, Resources
from embedding_core.records import Plan, WorkUnit
from embedding_core.runs.embed.saved import was_begun
from embedlake.local.hardware import Needs
from embedlake.settings import Settings

SMALL_TOKENS, SMALL_SECONDS = 250_000, 20.0
"""Less work than this is done before Ray and a model in a worker would have started, by the plan's
estimate: seconds where a rate is known, else tokens."""
LOADING_SECONDS = 5.0
"""Loading the libraries and a small model in the flow's own process, on two cores."""

SMALL_READ_BYTES = 8 * 1024 * 1024
"""Less than this is read, cut and counted before Ray would have started."""

SMALL_EXPORT_BYTES = 512 * 1024 * 1024
"""Less than this is written before Ray would have started."""
ROW_BYTES = 1_024
"""About the size of a row's texts and other columns."""


def is_little_to_export(n_rows: int, dim: int, settings: Settings) -> bool:
    """Whether so many rows are too few to start Ray for, just to write them."""
    n_bytes = n_rows * (4 * dim + ROW_BYTES)
    return settings.ray_address is None and n_bytes <= SMALL_EXPORT_BYTES


def is_little_to_read(n_bytes: int, settings: Settings) -> bool:
    """Whether so many bytes of a source are too few to start Ray for, just to count them."""
    return settings.ray_address is None and n_bytes <= SMALL_READ_BYTES


def is_small(
    planned: Plan,
    units: Sequence[WorkUnit],
    recipe: Recipe,
    resources: Resources,
    settings: Settings,
) -> bool:
    """Whether the work is too small to start Ray for: a single unit, of little text.

    A unit that an earlier run began and did not finish goes to Ray: it may be what ended that run,
    and a worker can be lost where the flow cannot. So does one that must not see this machine's
    GPU, which Ray hides.
    """
    if settings.ray_address is not None or len(units) != 1:
        return False
    tokens, seconds = planned.estimated_tokens, planned.work_seconds
    if seconds is None:
        is_little = tokens is not None and tokens <= SMALL_TOKENS
    else:
        is_little = seconds <= SMALL_SECONDS
    hides_gpu = n_nvidia_gpus() > 0 and not Needs.of(resources, settings).gpus
    return is_little and not hides_gpu and not was_begun(recipe, units[0])
