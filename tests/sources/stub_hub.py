"""A stand-in for a hub of datasets, over HTTP: commits, branches, pages, tokens and faults.

Answers what the real one answers for listing and reading, with its headers. Counts what it serves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

from embedding_core.store.storage import StorageSpec
from tests.sources.loopback import loopback_server

DATASET = "owner/name"
Commit = Mapping[str, bytes]


@dataclass(slots=True)
class StubHub:
    """The stand-in's dataset and the faults it shows."""

    url: str
    commits: dict[str, Commit] = field(default_factory=dict)
    """Files by path, by commit; a new commit never changes an older one."""
    branches: dict[str, str] = field(default_factory=dict)
    """Commits by branch."""
    page_size: int = 1000
    endless: Literal["", "a circle", "new cursors"] = ""
    """How a listing names a page after the last: the first again, or itself by a new cursor."""
    token: str | None = None
    """Asked for when there is one."""
    statuses: list[int] = field(default_factory=list)
    """Answered to the next requests instead of the real answers."""
    retry_after: str | None = None
    is_large: bool = True
    """Whether files are listed with the SHA-256 of large files."""
    requests: list[str] = field(default_factory=list)
    """Paths that were asked for."""
    n_bytes_read: int = 0
    """Bytes of files that were sent."""

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Put the files on a branch, in place of what it has."""
        sha = hashlib.sha1(json.dumps([branch, len(self.commits)]).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha

    @property
    def storage(self) -> StorageSpec:
        return StorageSpec(endpoint_url=self.url, anonymous=self.token is None)

    @property
    def reads(self) -> list[str]:
        """Requests for the content of files."""
        return [path for path in self.requests if "/resolve/" in path]


@contextmanager
def stub_hub() -> Iterator[StubHub]:
    """Run the stand-in on a free loopback port."""
    with loopback_server(_Handler) as server:
        hub = StubHub(f"http://127.0.0.1:{server.server_port}")
        server.hub = hub  # type: ignore[attr-defined]
        yield hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def hub(self) -> StubHub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if self._is_let_in(path):
            if path.startswith(f"/datasets/{DATASET}/resolve/"):
                self._resolve(*path.removeprefix(f"/datasets/{DATASET}/resolve/").split("/", 1))
            elif path.startswith(f"/api/datasets/{DATASET}/revision/"):
                self._revision(unquote(path.rpartition("/")[2]))
            elif path.startswith(f"/api/datasets/{DATASET}/tree/"):
                commit, _, folder = path.partition("/tree/")[2].partition("/")
                self._tree(commit, unquote(folder), parse_qs(query))
            else:
                self._answer(401 if self.hub.token is None else 404, code="RepoNotFound")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._is_let_in(self.path):
            files = self.hub.commits[self.path.rpartition("/")[2]]
            entries = [_entry(files, path, self.hub) for path in asked["paths"]]
            self._answer(200, json.dumps([entry for entry in entries if entry]).encode())

    def _is_let_in(self, path: str) -> bool:
        self.hub.requests.append(path)
        if self.hub.statuses:
            self._answer(self.hub.statuses.pop(0))
            return False
        token = self.headers.get("Authorization")
        if self.hub.token is not None and token != f"Bearer {self.hub.token}":
            self._answer(401 if token is None else 403, code="GatedRepo")
            return False
        return True

    def _revision(self, revision: str) -> None:
        sha = self.hub.branches.get(revision, revision)
        if sha in self.hub.commits:
            self._answer(200, json.dumps({"id": DATASET, "sha": sha}).encode())
        else:
            self._answer(404, code="RevisionNotFound")

    def _tree(self, commit: str, folder: str, query: dict[str, list[str]]) -> None:
        files = self.hub.commits[commit]
        below = f"{folder}/" if folder else ""
        paths = sorted(
            {path for path in files if path.startswith(below)}
            | {up for path in files for up in _folders(path) if up.startswith(below)}
        )
        start = int(query.get("cursor", ["0"])[0])
        page = paths[start : start + self.hub.page_size]
        headers = {}
        if start + len(page) < len(paths):
            address = f"{self.hub.url}{self.path.partition('?')[0]}"
            headers["Link"] = f'<{address}?cursor={start + len(page)}>; rel="next"'
        elif self.hub.endless:
            address = f"{self.hub.url}{self.path.partition('?')[0]}"
            more = len(self.hub.requests) if self.hub.endless == "new cursors" else 0
            headers["Link"] = f'<{address}?cursor={start}&more={more}>; rel="next"'
        entries = [_entry(files, path, self.hub) for path in page]
        self._answer(200, json.dumps(entries).encode(), headers)

    def _resolve(self, commit: str, path: str) -> None:
        content = self.hub.commits.get(commit, {}).get(unquote(path))
        if content is None:
            self._answer(404, code="EntryNotFound")
            return
        start, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
        body = content[int(start) : int(end) + 1]
        self.hub.n_bytes_read += len(body)
        self._answer(206, body)

    def _answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] = {}, code: str = ""
    ) -> None:
        self.send_response(status)
        extra = {"X-Error-Code": code, "Retry-After": self.hub.retry_after if status > 400 else ""}
        for name, value in {**headers, **extra, "Content-Length": str(len(body))}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _folders(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _entry(files: Commit, path: str, hub: StubHub) -> dict[str, Any] | None:
    if path in files:
        content = files[path]
        entry = {"type": "file", "path": path, "size": len(content), "oid": _blob_id(content)}
        if hub.is_large:
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}
        return entry
    is_folder = any(name.startswith(f"{path}/") for name in files)
    return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0} if is_folder else None


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
