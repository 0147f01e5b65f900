"""A stage whose lake is in a bucket of a real S3 server, behind a proxy."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from embedding_core.store import storage
from embedlake.local import processes, stack
from experiments.faults.s3.proxy import Proxy
from experiments.faults.s3.signing import put
from experiments.faults.s3.trouble import Trouble
from experiments.faults.stage import Stage, with_work


class BucketStage(Stage):
    """A stage with a lake of another name each time that it is put back."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._server = stack.start_s3(folder / "server", outlives=False)
        url = self._server.url or ""
        environment = stack.s3_environment(folder / "server", url)
        del environment["AWS_ENDPOINT_URL"]  # requests go through the proxy
        os.environ.update(environment)
        self._server_host = url.removeprefix("http://")
        self.proxy = Proxy(int(url.rpartition(":")[2]))
        through = {"endpoint_url": f"http://{self.proxy.host}", "region": stack.S3_REGION}
        super().__init__(folder, seed, lake={"uri": self._lake_uri(0), "storage": through})
        self._objects = folder / "objects"
        self._n_lakes = 0

    def save(self) -> None:
        """See ``Stage``."""
        super().save()
        self.prepare(self._download)

    def put_back(self, with_lake: bool = True) -> None:
        """See ``Stage``; without its lake there is an empty one."""
        super().put_back()
        self._n_lakes += 1
        lake = self.recipe.lake.model_copy(update={"uri": self._lake_uri(self._n_lakes)})
        self.recipe = self.recipe.model_copy(update={"lake": lake})
        for path in self._objects.rglob("*") if with_lake else ():
            if path.is_file():
                key = f"{lake.uri.removeprefix('s3://')}/{path.relative_to(self._objects)}"
                put(self._server_host, f"/{quote(key)}", path.read_bytes())

    def troubled(self, trouble: Trouble, action: Callable[[], Any]) -> Callable[[], Any]:
        """The action of a child whose requests are harmed."""

        def act() -> Any:
            self.proxy.give(replace(trouble, pid=os.getpid()))
            return action()

        return act

    def n_requests(self, matches: str) -> int:
        """Requests of a run that match an expression."""
        self.put_back()

        def count() -> int:
            self.proxy.give(Trouble(matches=matches))
            self.run()
            return self.proxy.give(Trouble()).n_matching

        return int(self.prepare(count))

    def objects(self) -> list[str]:
        """URIs of what is in the lake."""
        lake = self.recipe.lake
        return [file.uri for file in storage.files_below(lake.uri, lake.storage)]

    def close(self) -> None:
        """End the proxy and the server."""
        self.proxy.close()
        processes.stop(self._server, patience_seconds=0)

    def _lake_uri(self, number: int) -> str:
        return f"s3://{stack.BUCKET}/lake-{number}"

    def _download(self) -> None:
        """Keep every object of the lake as a file."""
        lake = self.recipe.lake
        for uri in self.objects():
            path = self._objects / uri.rpartition(f"/lake-{self._n_lakes}/")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(storage.read_bytes(f"s3://{uri.removeprefix('s3://')}", lake.storage))


def shared_bucket(folder: Path) -> BucketStage:
    """The stage ``with_work`` on S3 that experiments share; see ``shared_stage``."""
    return _bucket_with_work(folder.parent / "bucket")


@cache
def _bucket_with_work(folder: Path) -> BucketStage:
    return with_work(BucketStage(folder, seed=1))
