"""Datasets of a hub: ``hf://datasets/owner/name[@revision][/path]``, over its HTTP interface.

A fingerprint is a file's size and the hash that the hub lists, so nothing is downloaded to list a
dataset. The revision becomes a commit when the dataset is listed, and every read is of that commit:
a branch that moves meanwhile changes nothing. Where the hub is and who asks, ``huggingface_hub``
knows: ``HF_ENDPOINT``, ``HF_TOKEN`` or what ``hf auth login`` wrote. Its own client is not used: it
waits without a limit, and for as long as a server asks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, unquote, urljoin

from embedding_core.errors import EmbedlakeError, RejectedInput, SetupError, UsageError
from embedding_core.plurals import counted
from embedding_core.reasons import UNREADABLE
from embedding_core.records import SourceFile
from embedding_core.store.faults import Fault, fault_of_status
from embedding_core.store.http_client import Answer, Request, ask
from embedding_core.store.objects import KeyNames, Paging, RangedStream
from embedding_core.store.places import Names, Store
from embedding_core.store.storage import StorageSpec
from embedding_core.store.untrusted.json_text import read_json
from embedding_core.store.web import is_same_site

log = logging.getLogger(__name__)

DEFAULT_REVISION = "main"
CHECK_ENDPOINT = "check HF_ENDPOINT or source.storage.endpoint_url"
_URI = re.compile(
    r"hf://datasets/(?P<name>[^/@]+/[^/@]+)"
    r"(@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?"
    r"(/(?P<path>.*))?\Z",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset of a hub, or a folder or file of it."""

    name: str
    """``owner/name``."""
    revision: str
    """Branch, tag, commit, ``refs/convert/…`` or ``refs/pr/…``."""
    path: str
    """Folder or file in it; empty for all of it."""

    @classmethod
    def parse(cls, uri: str) -> Dataset:
        """Raises ``UsageError`` for a URI that names no dataset."""
        match = _URI.match(uri)
        if match is None:
            raise UsageError(
                f"{uri!r} names no dataset; write hf://datasets/owner/name, with @revision after "
                "the name and /folder or /file at the end where you need them"
            )
        revision = unquote(match["revision"] or DEFAULT_REVISION)
        return cls(match["name"], revision, (match["path"] or "").strip("/"))


class HubDatasets:
    """Files of the datasets of a hub."""

    schemes = ("hf",)
    is_read_to_plan = False

    def list(self, uri: str, spec: StorageSpec, names: Names) -> Iterator[SourceFile]:
        """See ``Store``. Asks for the commit, then for pages of 1,000 files."""
        dataset, hub = Dataset.parse(uri), _Hub.of(spec)
        commit = hub.commit(dataset)
        log.info("%s at %s is commit %s", dataset.name, dataset.revision, commit)
        keys = KeyNames(names)
        if dataset.path and (entry := hub.entry(dataset, commit))["type"] == "file":
            yield _source_file(dataset, commit, entry)
            return
        for entry in hub.tree(dataset, commit):
            below = entry["path"][len(dataset.path) + bool(dataset.path) :]
            if entry["type"] == "file" and keys.takes(below):
                yield _source_file(dataset, commit, entry)

    def open(self, file: SourceFile, spec: StorageSpec) -> RangedStream:
        """See ``Store``. Reads the commit that was listed, whatever the branch is at."""
        dataset = Dataset.parse(file.uri)
        read_range = partial(_Hub.of(spec).read, dataset, file.version)
        return RangedStream(file.size_bytes, read_range)

    def check_unchanged(self, file: SourceFile, spec: StorageSpec) -> None:
        """See ``Store``: a commit does not change."""


HUB: Store = HubDatasets()


@dataclass(frozen=True, slots=True)
class _Hub:
    endpoint: str
    headers: dict[str, str]

    @classmethod
    def of(cls, spec: StorageSpec) -> _Hub:
        from huggingface_hub import constants, get_token  # only sources on a hub need it loaded

        if constants.is_offline_mode():
            raise SetupError(
                "HF_HUB_OFFLINE is set, so no dataset of a hub can be read; unset it, or name a "
                "local folder as source.uri"
            )
        endpoint = (spec.endpoint_url or constants.ENDPOINT).rstrip("/")
        token = None if spec.anonymous else get_token()
        return cls(endpoint, {"Authorization": f"Bearer {token}"} if token else {})

    def commit(self, dataset: Dataset) -> str:
        """The commit that the revision is at now."""
        answer = self._ask(f"{self._api(dataset)}/revision/{quote(dataset.revision, safe='')}")
        described = _json(self._good(answer, dataset))
        commit = described.get("sha") if isinstance(described, dict) else None
        if not isinstance(commit, str) or not commit.isalnum():
            raise _no_listing(f"names no commit of {dataset.name}")
        return commit

    def entry(self, dataset: Dataset, commit: str) -> dict[str, Any]:
        """The path of the dataset as the hub lists it: a file or a folder."""
        request = Request(
            f"{self._api(dataset)}/paths-info/{commit}",
            "POST",
            self.headers,
            {"paths": [dataset.path]},
        )
        entries = _entries(self._good(ask(request), dataset))
        if not entries:
            raise SetupError(
                f"no {dataset.path!r} in {dataset.name} at {dataset.revision}; correct the path in "
                "source.uri"
            )
        return entries[0]

    def tree(self, dataset: Dataset, commit: str) -> Iterator[dict[str, Any]]:
        """Every file and folder below the path, at that commit. Errors as ``Paging.add``."""
        folder = f"/{quote(dataset.path)}" if dataset.path else ""
        url: str | None = f"{self._api(dataset)}/tree/{commit}{folder}?recursive=true&expand=false"
        paging = Paging(f"{dataset.name} at {self.endpoint}", CHECK_ENDPOINT)
        while url is not None:
            answer = self._good(self._ask(url), dataset)
            entries = _entries(answer)
            url = _next(url, answer.next_url)
            paging.add([entry["path"] for entry in entries], url)
            yield from entries

    def read(self, dataset: Dataset, commit: str, start: int, end: int) -> bytes:
        """Some bytes of a file at that commit; the hub may send them from another host."""
        request = Request(
            f"{self.endpoint}/datasets/{dataset.name}/resolve/{commit}/{quote(dataset.path)}",
            headers=self.headers | {"Range": f"bytes={start}-{end - 1}"},
            follows=True,
        )
        answer = ask(request, most_bytes=end - start)
        if not answer.is_good:
            error = _error(answer, dataset, self.endpoint)
            is_denied = fault_of_status(answer.status) is Fault.DENIED
            raise error if is_denied else RejectedInput(UNREADABLE, str(error))
        if len(answer.body) != end - start:
            raise RejectedInput(
                UNREADABLE,
                f"the hub sent {counted(len(answer.body), 'byte')} of the {end - start:,} from "
                f"{start:,}",
            )
        return answer.body

    def _api(self, dataset: Dataset) -> str:
        return f"{self.endpoint}/api/datasets/{dataset.name}"

    def _ask(self, url: str) -> Answer:
        try:
            return ask(Request(url, headers=self.headers, follows=True))
        except RejectedInput as error:
            raise SetupError(f"cannot list the dataset: {error.detail}") from error

    def _good(self, answer: Answer, dataset: Dataset) -> Answer:
        if not answer.is_good:
            raise _error(answer, dataset, self.endpoint)
        return answer


def read_file(file: Dataset, spec: StorageSpec) -> bytes:
    """A small file of a dataset, whole, at the commit that its revision is at now."""
    hub = _Hub.of(spec)
    commit = hub.commit(file)
    entry = hub.entry(file, commit)
    size_bytes: int = entry["size"] if entry["type"] == "file" else 0
    return hub.read(file, commit, 0, size_bytes) if size_bytes else b""


def _source_file(dataset: Dataset, commit: str, entry: dict[str, Any]) -> SourceFile:
    uri = f"hf://datasets/{dataset.name}/{entry['path']}"
    content = (entry.get("lfs") or entry)["oid"]
    return SourceFile(uri, f"{entry['size']}-{content}", entry["size"], commit)


def _next(url: str, page: str | None) -> str | None:
    """The URL of the next page of a listing: the hub's own, for the token goes there too."""
    if page is None:
        return None
    try:
        page = urljoin(url, page)
        stays = is_same_site(url, page)
    except ValueError:
        stays = False
    if not stays:
        raise _no_listing("names a page of another site as the next")
    return page


def _entries(answer: Answer) -> list[dict[str, Any]]:
    """The files and folders of a listing."""
    entries = _json(answer)
    if not isinstance(entries, list) or not all(map(_is_entry, entries)):
        raise _no_listing("does not list files as a hub does")
    return entries


def _is_entry(entry: Any) -> bool:
    """Whether an entry says what it is: its path, and of a file its size and digest."""
    if not isinstance(entry, dict) or not _is_text(entry.get("path")):
        return False
    if entry.get("type") != "file":
        return isinstance(entry.get("type"), str)
    content = entry.get("lfs") or entry
    is_sized = type(entry.get("size")) is int and entry["size"] >= 0
    return is_sized and isinstance(content, dict) and _is_text(content.get("oid"))


def _is_text(value: object) -> bool:
    """Whether a value is a text that a table can keep."""
    try:
        return isinstance(value, str) and bool(value.encode()) and "\0" not in value
    except UnicodeEncodeError:
        return False


def _json(answer: Answer) -> Any:
    try:
        return read_json(answer.body)
    except ValueError as error:
        raise _no_listing("answers with something that is no JSON") from error


def _no_listing(problem: str) -> SetupError:
    return SetupError(f"the hub {problem}; {CHECK_ENDPOINT}")


def _error(answer: Answer, dataset: Dataset, endpoint: str) -> EmbedlakeError:
    """What a status means. A hub answers 401 for a private dataset, and, without a token, for one
    that does not exist."""
    asked = f"{endpoint} answers HTTP {answer.status} for {dataset.name}"
    code = answer.headers.get("X-Error-Code", "")
    if fault_of_status(answer.status) is Fault.DENIED:
        return SetupError(
            f"{asked}: it is private or gated, or there is no such dataset; set HF_TOKEN to a "
            "token that may read it or run `hf auth login`, ask for access on its page where it is "
            "gated, or correct source.uri"
        )
    if code == "RevisionNotFound":
        return SetupError(
            f"{asked}: no revision {dataset.revision!r}; correct what stands after @ in source.uri"
        )
    if fault_of_status(answer.status) is Fault.GONE:
        return SetupError(
            f"{asked}: no such dataset, revision ({dataset.revision}) or path "
            f"({dataset.path or 'none'}); correct source.uri"
        )
    return SetupError(f"{asked}; check source.uri and HF_ENDPOINT")
