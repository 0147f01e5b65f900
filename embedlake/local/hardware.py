"""What an embed task needs of a machine, held against what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedding_core.gpus import n_nvidia_gpus
from embedding_core.plurals import counted
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.runs.serving import is_endpoint
from embedlake.settings import Settings


@dataclass(frozen=True, slots=True)
class Needs:
    """What Ray reserves for an embed task."""

    cpus: float
    gpus: float

    @classmethod
    def of(cls, resources: Resources, settings: Settings) -> Needs:
        """On a local CPU one embed task takes all cores: one model in memory, its matrices spread
        over all of them."""
        gpus = _gpus(resources, settings)
        default = settings.ray_cpus if settings.is_local_ray and not gpus else 1
        return cls(resources.cpus_per_task or default, gpus)

    def fitting(self, nodes: Sequence[Mapping[str, float]]) -> int:
        """Embed tasks that run at once on these nodes."""
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        return sum(
            min(int(node.get(kind, 0.0) / amount) for kind, amount in needs.items() if amount)
            for node in nodes
        )

    def lacking_among(self, nodes: Sequence[Mapping[str, float]]) -> str | None:
        """What is missing for one task on any of these nodes; None when one of them has it all."""
        if any(self.lacking(node) is None for node in nodes):
            return None
        together = {kind: sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU")}
        return self.lacking(together) or (
            f"an embed task asks for {counted(self.cpus, 'CPU')} and {counted(self.gpus, 'GPU')} "
            "of one node, and no node has both; lower cpus_per_task or gpus_per_task"
        )

    def lacking(self, capacity: Mapping[str, float]) -> str | None:
        """What a machine lacks for one task, as a sentence; None when the task can run there.

        ``capacity`` is by Ray's names.
        """
        cpus, gpus = capacity.get("CPU", 0.0), capacity.get("GPU", 0.0)
        if self.gpus > gpus:
            return (
                f"an embed task asks for {counted(self.gpus, 'GPU')} and there are {gpus:g}; set "
                "gpus_per_task to what there is (0: embed on CPUs), or device to cpu"
            )
        if self.cpus > cpus:
            return (
                f"an embed task asks for {counted(self.cpus, 'CPU')} and there are {cpus:g}; lower "
                "cpus_per_task, or raise EMBEDLAKE_RAY_CPUS for a local Ray"
            )
        return None


def resources_for(model: ModelSpec, resources: Resources, settings: Settings) -> Resources:
    """The resources of each task of a run with this model.

    A task that asks a server takes no GPU, and leaves other CPUs to the tasks that read and cut;
    of this machine no more tasks run than there may be requests.
    """
    if not is_endpoint(model):
        return resources
    cpus = resources.cpus_per_task or max(1.0, settings.ray_cpus / resources.at_once)
    return resources.updated({"device": "cpu", "gpus_per_task": 0, "cpus_per_task": cpus})


def local_capacity(settings: Settings) -> Mapping[str, float]:
    """What a Ray started on this machine has."""
    return {"CPU": float(settings.ray_cpus), "GPU": float(n_nvidia_gpus())}


def lacking(resources: Resources, settings: Settings) -> str | None:
    """What is missing for an embed task before anything was started; None when nothing is.

    That is a ``device`` that needs a GPU where a task gets none, and for a Ray of this machine what
    the machine does not have.
    """
    needs = Needs.of(resources, settings)
    if needs.gpus == 0 and resources.device.startswith("cuda"):
        return (
            f"device {resources.device!r} asks for a GPU and an embed task gets none "
            f"({n_nvidia_gpus()} on this machine); set device to auto or cpu, or gpus_per_task to 1"
        )
    return needs.lacking(local_capacity(settings)) if settings.is_local_ray else None


def _gpus(resources: Resources, settings: Settings) -> float:
    """GPUs an embed task gets."""
    if resources.gpus_per_task is not None:
        return resources.gpus_per_task
    return float(settings.is_local_ray and resources.device != "cpu" and n_nvidia_gpus() > 0)
