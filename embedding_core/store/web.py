"""Files behind URLs: a list of them, ``https://host/list.txt``, or a single URL.

A list is text with a URL a line, relative ones to the list; blank lines and lines that begin with
``#`` are passed over. A fingerprint is a file's size and its ETag, or its date without an ETag, as
a ``HEAD`` says; a file without both is a reject, since nobody could see that it changed.

Redirects are followed within a site: to the same host, or between a host and one below it. A URL
that holds a password or a signature is refused, since URLs stand in tables and logs: credentials
come from ``~/.netrc``.
"""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from io import RawIOBase
from typing import BinaryIO, cast
from urllib.parse import SplitResult, unquote, urldefrag, urljoin, urlsplit

from embedding_core.errors import RejectedInput, SetupError, UsageError, words
from embedding_core.plurals import counted
from embedding_core.reasons import CHANGED, UNREADABLE
from embedding_core.records import Reject, SourceFile
from embedding_core.redaction import redacted, secret_in
from embedding_core.store.http_client import MOST_BYTES, Answer, Request, ask, download, shown
from embedding_core.store.objects import KeyNames, RangedStream
from embedding_core.store.places import Names, Store
from embedding_core.store.storage import StorageSpec

log = logging.getLogger(__name__)

LIST_SUFFIX = ".txt"
ASKED_AT_ONCE = 16
"""Files of a list whose headers are asked for at the same time."""
MOST_REDIRECTS = 5
REPORT_SECONDS = 5.0
"""Time between two lines in the log about a long list."""
REDIRECTS = (301, 302, 303, 307, 308)
NO_HEAD = (405, 501)
"""Statuses of servers that answer no ``HEAD``."""
RANGE_BEYOND_THE_END = 416
DEFAULT_PORTS = {"http": 80, "https": 443}
_SIZE = re.compile(r"[0-9]{1,18}")
"""A number of bytes, in ASCII digits."""


class WebFiles:
    """Files of HTTP servers."""

    schemes = ("http", "https")
    is_read_to_plan = False

    def list(self, uri: str, spec: StorageSpec, names: Names) -> Iterator[SourceFile | Reject]:
        """See ``Store``. Names are below the list's folder; a file elsewhere is ``host/path``.

        Asks for the headers of each file, several at a time.
        """
        if (why := refusal(uri)) is not None:
            raise UsageError(f"{redacted(uri)} {why}")
        if not urlsplit(uri).path.endswith(LIST_SUFFIX):
            with _source_faults():
                yield _source_file(uri)
            return
        with _source_faults():
            urls = _urls(uri)
        keys, folder = KeyNames(names), urljoin(uri, ".")
        chosen = [url for url in urls if keys.takes(_name(url, folder))]
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            yield from _reported(pool.map(_listed, chosen), uri, len(chosen))

    @contextmanager
    def open(self, file: SourceFile, spec: StorageSpec) -> Iterator[RawIOBase]:
        """See ``Store``. Ranges where the server has them, else a copy in a temporary file, which
        may not be larger than listed."""
        answer = _headers(file.uri)
        _check_version(file, answer)
        if answer.headers.get("Accept-Ranges", "").lower() == "bytes":
            yield RangedStream(file.size_bytes, partial(_read, file))
            return
        with tempfile.TemporaryFile(buffering=0) as copy:
            _copy(file, cast("BinaryIO", copy))
            copy.seek(0)
            yield cast("RawIOBase", copy)

    def check_unchanged(self, file: SourceFile, spec: StorageSpec) -> None:
        """See ``Store``. Asks for the headers once more."""
        _check_version(file, _headers(file.uri))


WEB: Store = WebFiles()


def refusal(url: str) -> str | None:
    """Why a URL is not asked for, in words that do not repeat its secrets; None for a good one."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        return "is no http:// or https:// URL; correct it"
    if (secret := secret_in(url)) is not None:
        return (
            f"{secret}, which would stand in the table; use a URL without it, and ~/.netrc or the "
            "store's own scheme (s3://)"
        )
    return None


def is_same_site(url: str, target: str) -> bool:
    """Whether a redirect stays with whom was asked: the same host or one below or above it, the
    same port, and never from https to http."""
    before, after = urlsplit(url), urlsplit(target)
    if before.scheme == after.scheme:
        is_same_port = _port(before) == _port(after)
    else:
        is_same_port = after.scheme == "https" and {before.port, after.port} <= {None, 80, 443}
    old_host, new_host = before.hostname or "", after.hostname or ""
    is_related = (
        old_host == new_host
        or old_host.endswith(f".{new_host}")
        or new_host.endswith(f".{old_host}")
    )
    return is_same_port and is_related


def _port(parts: SplitResult) -> int | None:
    return parts.port or DEFAULT_PORTS.get(parts.scheme)


def _urls(uri: str) -> list[str]:
    """The URLs of a list, in order, each once."""
    answer = _good(_followed(Request(uri, uses_netrc=True), partial(ask, most_bytes=MOST_BYTES)))
    try:
        lines = answer.body.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RejectedInput(UNREADABLE, f"the list is not UTF-8: {words(error)}") from error
    stripped = (line.strip() for line in lines)
    urls = (line for line in stripped if line and not line.startswith("#"))
    return list(dict.fromkeys(_joined(uri, url) for url in urls))


def _joined(uri: str, url: str) -> str:
    """A URL of a list, absolute; as it is written where it cannot be one."""
    try:
        return urldefrag(urljoin(uri, url)).url
    except ValueError:
        return url


def _name(url: str, folder: str) -> str:
    """How globs see a file: its path below the list's folder, or its host and path."""
    path = shown(url)
    below = path.removeprefix(folder) if path.startswith(folder) else path.partition("://")[2]
    return unquote(below)


def _listed(url: str) -> SourceFile | Reject:
    if (why := refusal(url)) is not None:
        return Reject(redacted(url), None, None, UNREADABLE.name, f"the URL {why}")
    try:
        return _source_file(url)
    except RejectedInput as error:
        return Reject(url, None, None, error.reason, error.detail)


def _source_file(url: str) -> SourceFile:
    fingerprint = _fingerprint(_headers(url))
    return SourceFile(url, fingerprint, int(fingerprint.partition("-")[0]))


def _fingerprint(answer: Answer) -> str:
    """Size and version of the file that an answer is about, or is a range of."""
    headers = answer.headers
    size = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
    version = headers.get("ETag", "").replace('"', "") or headers.get("Last-Modified", "")
    if not _SIZE.fullmatch(size) or not version:
        raise RejectedInput(
            UNREADABLE,
            "the server says neither ETag nor Last-Modified, or no Content-Length, so nobody could "
            "see that the file changed; copy it to a folder or a bucket",
        )
    return f"{size}-{version}"


def _check_version(file: SourceFile, answer: Answer) -> None:
    if _fingerprint(answer) != file.fingerprint:
        raise RejectedInput(CHANGED, "the file changed after it was listed; run again")


def _headers(url: str) -> Answer:
    """What the server says of a file, without its content."""
    without_body = partial(ask, most_bytes=0)
    answer = _followed(Request(url, "HEAD", uses_netrc=True), without_body)
    if answer.status in NO_HEAD:
        answer = _followed(Request(url, uses_netrc=True), without_body)
    return _good(answer)


def _read(file: SourceFile, start: int, end: int) -> bytes:
    request = Request(file.uri, headers={"Range": f"bytes={start}-{end - 1}"}, uses_netrc=True)
    answer = _followed(request, partial(ask, most_bytes=end - start))
    if answer.status == RANGE_BEYOND_THE_END:
        raise RejectedInput(CHANGED, "the file became shorter after it was listed; run again")
    _check_version(file, _good(answer))
    if len(answer.body) != end - start:
        raise RejectedInput(
            UNREADABLE, f"the server sent {counted(len(answer.body), 'byte')} of {end - start:,}"
        )
    return answer.body


def _copy(file: SourceFile, target: BinaryIO) -> None:
    copied = partial(download, target=target, most_bytes=file.size_bytes)
    try:
        answer = _followed(Request(file.uri, uses_netrc=True), copied)
    except OSError as error:
        raise SetupError(
            f"cannot copy {redacted(file.uri)} to {tempfile.gettempdir()}: {words(error)}; free "
            "room, or set TMPDIR to another folder"
        ) from error
    _check_version(file, _good(answer))


def _followed(request: Request, send: Callable[[Request], Answer]) -> Answer:
    """The answer behind redirects within the site. Raises ``RejectedInput`` for others."""
    for _ in range(MOST_REDIRECTS + 1):
        answer = send(request)
        target = answer.headers.get("Location")
        if answer.status not in REDIRECTS or target is None:
            return answer
        try:
            target = urljoin(request.url, target)
            stays = is_same_site(request.url, target)
        except ValueError as error:
            raise RejectedInput(UNREADABLE, "it redirects to what is no URL") from error
        if not stays:
            raise RejectedInput(
                UNREADABLE,
                f"it redirects to another site ({redacted(target)}); name that URL if you trust it",
            )
        request = replace(request, url=target)
    raise RejectedInput(UNREADABLE, f"more than {MOST_REDIRECTS} redirects")


def _good(answer: Answer) -> Answer:
    if not answer.is_good:
        is_denied = answer.status in (401, 403)
        action = "put its credentials into ~/.netrc" if is_denied else "correct the URL"
        raise RejectedInput(UNREADABLE, f"the server answers HTTP {answer.status}; {action}")
    return answer


@contextmanager
def _source_faults() -> Iterator[None]:
    """A file that cannot be read ends a run where it is the source, or the list of its files."""
    try:
        yield
    except RejectedInput as error:
        raise SetupError(f"cannot read source.uri: {error.detail}") from error


def _reported(
    entries: Iterable[SourceFile | Reject], uri: str, n_files: int
) -> Iterator[SourceFile | Reject]:
    """The entries; the log says how far a long list is."""
    reported_at = time.monotonic()
    for n_listed, entry in enumerate(entries, 1):
        if time.monotonic() - reported_at > REPORT_SECONDS:
            reported_at = time.monotonic()
            log.info("%s: %d of %s listed", redacted(uri), n_listed, counted(n_files, "file"))
        yield entry
