"""The models of the spaces that queries are asked in, each loaded once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from embedding_core.encoder.engines import describe_model, free_memory, load_model
from embedding_core.lake.query.search import check_query_space
from embedding_core.lake.snapshot import Snapshot
from embedding_core.protocols import TextEncoder
from embedding_core.recipe import ModelSpec, Recipe, Resources
from embedding_core.runs.announce import loading_context
from embedding_core.runs.serving import serving_model
from embedding_core.server.answering.limits import Limits
from embedding_core.server.together.batching import Batcher


class ModelCache:
    """Batchers by ``space_id``, or by the section of a model that asks through bridges; of too
    many, the one that was used longest ago goes."""

    def __init__(
        self, resources: Resources, limits: Limits, observe: Callable[[int], object]
    ) -> None:
        self._resources = resources
        self._limits = limits
        self._observe = observe
        self._batchers: OrderedDict[str, Batcher] = OrderedDict()
        self._loads: dict[str, asyncio.Task[Batcher]] = {}

    def ready(self, space_id: str) -> Batcher | None:
        """The model of a space if it is loaded."""
        if space_id in self._batchers:
            self._batchers.move_to_end(space_id)
        return self._batchers.get(space_id)

    async def of_column(self, recipe: Recipe, snapshot: Snapshot, column: str) -> Batcher:
        """The model of a vector column, loaded if it is not; whoever asks meanwhile waits too.

        Raises ``LakeError`` when the model gives vectors of another space here, ``ModelError`` when
        it cannot be found or run.
        """
        load = partial(loaded_encoder, recipe, snapshot, column, self._resources)
        return await self._loaded(snapshot.space(column)[0], load)

    async def of_model(self, model: ModelSpec) -> Batcher:
        """A model by itself, whatever the tables have of it. Raises ``ModelError`` as above."""
        return await self._loaded(model.model_dump_json(), partial(self._encoder, model))

    def _encoder(self, model: ModelSpec) -> TextEncoder:
        with loading_context(model.name) as loaded:
            return loaded(load_model(describe_model(model), model, self._resources))

    async def _loaded(self, name: str, load: Callable[[], TextEncoder]) -> Batcher:
        if (batcher := self.ready(name)) is not None:
            return batcher
        task = self._loads.get(name)
        if task is None:
            task = asyncio.create_task(self._load(name, load))
            self._loads[name] = task
            task.add_done_callback(lambda _task: self._loads.pop(name))
        return await asyncio.shield(task)

    async def _load(self, name: str, load: Callable[[], TextEncoder]) -> Batcher:
        encoder = await asyncio.to_thread(load)
        batcher = Batcher(encoder, self._limits.together, self._observe)
        self._batchers[name] = batcher
        while len(self._batchers) > self._limits.models:
            self._batchers.popitem(last=False)
            free_memory()
        return batcher


def loaded_encoder(
    recipe: Recipe, snapshot: Snapshot, column: str, resources: Resources
) -> TextEncoder:
    """Load the model whose vectors a column holds, after making sure that it is that model."""
    serving = serving_model(recipe, snapshot, column)
    check_query_space(serving.info.space, *snapshot.space(column))
    with loading_context(serving.model.name) as loaded:
        return loaded(load_model(serving.info, serving.model, resources))
