"""Count the units of a source: in this process when there is little to read, else on Ray.

Nothing is written and nobody waits for a record of it, so no Prefect API is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from embedding_core.errors import Transient
from embedding_core.runs.inputs.counting import Counting, Portion, count_unit
from embedding_core.runs.inputs.tallies import Groups
from embedding_core.store.retry import TASK_RETRIES
from embedlake import interrupts
from embedlake.settings import Settings

IN_FLIGHT = 32
LISTENING_SECONDS = 1.0
"""How soon a signal is seen while Ray works."""

Unit = tuple[Portion, ...]


def counted(counting: Counting, units: Iterable[Unit], settings: Settings, on_ray: bool) -> Groups:
    """The tallies of all units, added up in the units' order."""
    groups = Groups()
    results = _on_ray(counting, units, settings) if on_ray else _here(counting, units)
    for result in results:
        groups.merge(result)
    return groups


def _here(counting: Counting, units: Iterable[Unit]) -> Iterator[Groups]:
    for unit in units:
        interrupts.check()
        yield count_unit(counting, unit)


def _on_ray(counting: Counting, units: Iterable[Unit], settings: Settings) -> Iterator[Groups]:
    """Each unit is a task of a CPU; a bounded number is in flight."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    from embedlake.execution.ray_runner import RayRunner, broke_down
    from embedlake.execution.runner import ray_broke_down

    with RayRunner.of(settings):
        task = ray.remote(num_cpus=1, max_retries=TASK_RETRIES, retry_exceptions=[Transient])(
            count_unit
        )
        shared, waiting = ray.put(counting), iter(units)
        in_flight = deque(task.remote(shared, unit) for unit in islice(waiting, IN_FLIGHT))
        while in_flight:
            interrupts.check()
            try:
                ended, _ = ray.wait([in_flight[0]], timeout=LISTENING_SECONDS)
                if not ended:
                    continue
                result: Groups = ray.get(in_flight.popleft())
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:
                raise (ray_broke_down(error) if broke_down(error) else error) from error
            yield result
            in_flight.extend(task.remote(shared, unit) for unit in islice(waiting, 1))
