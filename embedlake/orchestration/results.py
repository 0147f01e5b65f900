"""Keep Prefect's task results beside the lake, so that any worker of any run finds them."""

from __future__ import annotations

from pathlib import Path

from prefect.filesystems import RemoteFileSystem

from embedding_core.identity import SHOWN_DIGITS, digest
from embedding_core.recipe import Recipe
from embedding_core.store import storage
from embedding_core.store.layout import results_folder


def result_storage(recipe: Recipe) -> Path | str:
    """A folder for a local lake, a saved Prefect block for one on S3.

    The block names the bucket and the endpoint and holds no credentials; workers find those where
    every AWS client does.
    """
    uri = results_folder(recipe.lake.uri, recipe.lake.table)
    if storage.is_local(uri):
        return Path(uri)
    spec = recipe.lake.storage
    client = {
        name: value
        for name, value in (("endpoint_url", spec.endpoint_url), ("region_name", spec.region))
        if value
    }
    block = RemoteFileSystem(
        basepath=uri, settings={"anon": spec.anonymous, "client_kwargs": client}
    )
    name = f"embedlake-{digest([uri, client])[:SHOWN_DIGITS]}"
    block.save(name, overwrite=True)
    return f"remote-file-system/{name}"
