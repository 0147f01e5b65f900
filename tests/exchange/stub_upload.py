"""A stand-in for the side of a hub that is written to: repositories, and commits of files."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

from tests.sources.loopback import loopback_server


@dataclass(slots=True)
class UploadHub:
    """Datasets that exist, their files, and the faults that it shows."""

    url: str
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Files by path, by dataset."""
    private: dict[str, bool] = field(default_factory=dict)
    branches: set[str] = field(default_factory=lambda: {"main"})
    """Of every dataset."""
    n_commits: int = 0
    """By whomever; the newest is the number of all."""
    token: str = "hf_geheim"
    status: int | None = None
    """Answered to a commit instead of making it."""
    before_commit: Callable[[UploadHub], object] | None = None
    """Called once, when files are on their way."""

    @property
    def commit(self) -> str:
        """The newest commit of every dataset."""
        return f"{self.n_commits:040x}"

    def write(self, dataset: str, path: str, data: bytes) -> None:
        """A commit of somebody else."""
        self.files[dataset][path] = data
        self.n_commits += 1


@contextmanager
def upload_hub() -> Iterator[UploadHub]:
    """A stand-in on a port of this machine."""
    hub = UploadHub("")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            dataset, _, rest = self.path.removeprefix("/api/datasets/").partition("/")
            name, _, rest = rest.partition("/")
            name = f"{dataset}/{name.partition('?')[0]}"
            if "/resolve/" in self.path:
                name, _, path = self.path.removeprefix("/datasets/").partition(
                    f"/resolve/{hub.commit}/"
                )
                return self.send(hub.files[name][path], 206)
            if not self.path.startswith("/api/datasets/"):
                return self.answer({})
            if name not in hub.files:
                return self.answer({"error": "no"}, 404, {"X-Error-Code": "RepoNotFound"})
            revision = unquote(rest.partition("/")[2].partition("?")[0])
            if revision and revision not in {*hub.branches, hub.commit}:
                return self.answer({"error": "no"}, 404, {"X-Error-Code": "RevisionNotFound"})
            if rest.startswith("tree/"):
                return self.answer(
                    [
                        {"type": "file", "path": path, "size": len(data), "oid": "o"}
                        for path, data in hub.files[name].items()
                    ]
                )
            siblings = [{"rfilename": path} for path in hub.files[name]]
            return self.answer({"id": name, "sha": hub.commit, "siblings": siblings})

        def do_POST(self) -> None:
            body = self.body()
            if "/paths-info/" in self.path:
                name = "/".join(self.path.removeprefix("/api/datasets/").split("/")[:2])
                (path,) = json.loads(body)["paths"]
                size = len(hub.files[name][path])
                return self.answer([{"type": "file", "path": path, "size": size, "oid": "o"}])
            if self.headers.get("Authorization") != f"Bearer {hub.token}":
                return self.answer({"error": "no token"}, 401)
            if self.path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                if name in hub.files:
                    return self.answer({"url": f"{hub.url}/datasets/{name}"}, 409)
                hub.files[name] = {".gitattributes": b""}
                hub.private[name] = asked.get("private") or asked.get("visibility") == "private"
                return self.answer({"url": f"{hub.url}/datasets/{name}"})
            name = "/".join(self.path.removeprefix("/api/datasets/").split("/")[:2])
            if "/branch/" in self.path:
                hub.branches.add(unquote(self.path.partition("/branch/")[2]))
                return self.answer({})
            if self.path.partition("/commit/")[2] not in {"", *hub.branches}:
                return self.answer({"error": "no"}, 404, {"X-Error-Code": "RevisionNotFound"})
            if "/preupload/" in self.path:
                if hub.before_commit is not None:
                    meanwhile, hub.before_commit = hub.before_commit, None
                    meanwhile(hub)
                files = json.loads(body)["files"]
                return self.answer(
                    {
                        "files": [
                            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                            for file in files
                        ]
                    }
                )
            if "/commit/" not in self.path:
                return self.answer({"errors": [], "warnings": []})  # of a card
            if hub.status is not None:
                return self.answer({"error": "staged"}, hub.status)
            operations = [json.loads(line) for line in body.splitlines()]
            parent = operations[0]["value"].get("parentCommit", hub.commit)
            if parent != hub.commit:
                return self.answer({"error": "A commit has happened since."}, 412)
            for operation in operations:
                value = operation["value"]
                if operation["key"] == "file":
                    hub.files[name][value["path"]] = base64.b64decode(value["content"])
                if operation["key"] == "deletedFile":
                    del hub.files[name][value["path"]]
            hub.n_commits += 1
            return self.answer(
                {
                    "commitUrl": f"{hub.url}/datasets/{name}/commit/{hub.commit}",
                    "commitOid": hub.commit,
                }
            )

        def body(self) -> bytes:
            """The body of a request, whole or in chunks."""
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"] or 0))
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def answer(
            self, content: Any, status: int = 200, headers: dict[str, str] | None = None
        ) -> None:
            self.send(json.dumps(content).encode(), status, headers)

        def send(self, data: bytes, status: int, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for header, value in (headers or {}).items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with loopback_server(Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        yield hub
