"""A hub or a web server may answer anything: what cannot be used is refused in words, and no token
and no request goes where the answer leads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from embedding_core.errors import RejectedInput, SetupError
from embedding_core.recipe import SourceSpec
from embedding_core.records import SourceFile
from embedding_core.sources import discover, read_documents
from embedding_core.store.storage import StorageSpec
from tests.sources.loopback import loopback_server

COMMIT = "c" * 40
ENTRY: dict[str, Any] = {"type": "file", "path": "a.jsonl", "size": 3, "oid": "0" * 40}
DEEP = "[" * 100_000


@dataclass(slots=True)
class Server:
    """A server that gives the same answers to everybody."""

    url: str
    revision: str = json.dumps({"sha": COMMIT})
    tree: str = json.dumps([ENTRY])
    headers: dict[str, str] = field(default_factory=dict)
    """Of every answer but that of a revision."""
    status: int = 200
    tokens: list[str | None] = field(default_factory=list)
    """The Authorization header of every request."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Server = self.server.answers  # type: ignore[attr-defined]
        server.tokens.append(self.headers.get("Authorization"))
        is_revision = "/revision/" in self.path
        body = (server.revision if is_revision else server.tree).encode("utf-8", "surrogatepass")
        self.send_response_only(200 if is_revision else server.status)
        headers = {"Content-Length": str(len(body))} | ({} if is_revision else server.headers)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(**answers: Any) -> Iterator[Server]:
    with loopback_server(_Handler) as server:
        server.answers = Server(f"http://127.0.0.1:{server.server_port}", **answers)  # type: ignore[attr-defined]
        yield server.answers  # type: ignore[attr-defined]


def on_hub(server: Server) -> list[SourceFile]:
    storage = StorageSpec(endpoint_url=server.url)
    return [*discover(SourceSpec(uri="hf://datasets/owner/name", storage=storage)).files]


def test_hub_that_answers_as_one_is_listed() -> None:
    with serving() as server:
        (file,) = on_hub(server)
    assert (file.uri, file.size_bytes) == ("hf://datasets/owner/name/a.jsonl", 3)


@pytest.mark.parametrize(
    "revision",
    ["{}", "[]", '{"sha": 5}', '{"sha": ""}', '{"sha": "../../x"}', '"x"', DEEP, "<html>"],
)
def test_hub_that_names_no_commit_is_refused(revision: str) -> None:
    with serving(revision=revision) as server, pytest.raises(SetupError, match="check HF_ENDPOINT"):
        on_hub(server)


@pytest.mark.parametrize(
    "entry",
    [
        5,
        {},
        ENTRY | {"path": 5},
        ENTRY | {"path": ""},
        ENTRY | {"path": "a\0.jsonl"},
        ENTRY | {"path": "\ud800.jsonl"},
        ENTRY | {"type": None},
        ENTRY | {"size": "3"},
        ENTRY | {"size": -3},
        ENTRY | {"size": True},
        ENTRY | {"oid": 5},
        ENTRY | {"lfs": "x"},
        ENTRY | {"lfs": {}, "oid": None},
    ],
)
def test_hub_that_lists_what_is_no_file_is_refused(entry: Any) -> None:
    with (
        serving(tree=json.dumps([ENTRY, entry])) as server,
        pytest.raises(SetupError, match="does not list files as a hub does; check HF_ENDPOINT"),
    ):
        on_hub(server)


@pytest.mark.parametrize("tree", ["{}", "5", DEEP, "[", ""])
def test_hub_that_lists_nothing_that_can_be_read_is_refused(tree: str) -> None:
    with serving(tree=tree) as server, pytest.raises(SetupError, match="check HF_ENDPOINT"):
        on_hub(server)


def test_token_of_a_hub_does_not_go_to_the_page_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving() as other, serving() as server:
        for page in (f"{other.url}/next", "http://[bad", "//elsewhere.example/x", "file:///etc"):
            server.headers = {"Link": f'<{page}>; rel="next"'}
            with pytest.raises(SetupError, match="page of another site"):
                on_hub(server)
        assert set(server.tokens) == {"Bearer hf_secret"}
        assert other.tokens == []


GOOD = {"ETag": '"1"', "Content-Length": "3"}


@pytest.mark.parametrize(
    "location", ["http://[bad", "http://127.0.0.1:99999999/", "http://", "\xb2", "//x:y/", "data:x"]
)
def test_web_server_that_redirects_to_what_is_no_url_is_refused(location: str) -> None:
    with serving(status=302, headers={"Location": location}) as server:
        spec = SourceSpec(uri=f"{server.url}/a.jsonl")
        with pytest.raises(SetupError, match="redirect"):
            discover(spec)


@pytest.mark.parametrize("size", ["\xb2", "-1", "1e3", "9" * 400])
def test_web_server_that_says_no_size_is_refused(size: str) -> None:
    headers = {"ETag": '"1"', "Content-Range": f"bytes 0-0/{size}"}
    with serving(status=206, headers=headers, tree="") as server:
        spec = SourceSpec(uri=f"{server.url}/a.jsonl")
        with pytest.raises((SetupError, RejectedInput)):
            [*read_documents(discover(spec).files[0], spec)]


def test_list_of_what_is_no_url_gives_rejects() -> None:
    lines = ["http://[bad", "http://127.0.0.1:99999999/a.jsonl", "file:///etc/passwd", "ftp://x/a"]
    with serving(tree="\n".join(lines)) as server:
        found = discover(SourceSpec(uri=f"{server.url}/list.txt", include=("**/*",)))
    assert found.files == () and len(found.unreadable) == len(lines)
    assert all("is no http:// or https:// URL" in reject.detail for reject in found.unreadable)
