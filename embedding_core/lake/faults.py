"""Classify store faults by class and number, and try again after those that may pass."""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa
from botocore.exceptions import BotoCoreError

from embedding_core.errors import LakeError, Transient, words
from embedding_core.store.faults import without_credentials
from embedding_core.store.retry import FIRST_PAUSE_SECONDS, STORE_ATTEMPTS

Result = TypeVar("Result")

DENIED = (errno.EACCES, errno.EPERM)
FULL_OR_READ_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

LANCE_IO = "LanceError(IO)"
"""Part of the text of an ``ArrowInvalid`` that comes from the store, not from bad values."""
FILE_GONE = "External error: Not found"
"""Start of the text of an ``ArrowInvalid`` when a file that a scan needs is missing."""

_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)")
"""The number of an operating system's error in the text of Lance's, whose errors carry none."""
_SOURCE_LINES = re.compile(r"(, /\S+\.rs:\d+:\d+)+\.?\s*$")
"""The lines of Lance's source at the end of its messages."""


def plain(error: BaseException) -> str:
    """What an error of Lance says, without the lines of Lance's source."""
    return _SOURCE_LINES.sub("", words(error))


@contextmanager
def store_faults(doing: str) -> Iterator[None]:
    """Classify what Lance, its streams and s3fs raise while ``doing`` something.

    A refused access and a full disk become a ``LakeError``. These become ``Transient``, to be tried
    again a few times and then reported with their cause:
    - every other ``OSError``: Lance raises its I/O and commit errors as such;
    - an ``ArrowInvalid`` about Lance's I/O: pyarrow turns whatever stops a scan into one;
    - a panic of Lance, which is not an ``Exception`` and would end a worker.
    """
    try:
        with _io_faults(doing):
            yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise Transient(
            f"{doing}: Lance gave up in its middle ({plain(error)}); run the same command again. "
            "If that ends the same way, `embedlake verify RECIPE --deep` names what is damaged"
        ) from error


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust panicked. pyo3 raises it as a class that cannot be imported."""
    return type(error).__name__ == "PanicException"


@contextmanager
def _io_faults(doing: str) -> Iterator[None]:
    """Classify errors of Lance's I/O, of its streams and of s3fs."""
    try:
        yield
    except (OSError, BotoCoreError, pa.ArrowInvalid) as error:
        is_arrow, message = isinstance(error, pa.ArrowInvalid), str(error)
        if is_arrow and LANCE_IO not in message and not message.startswith(FILE_GONE):
            raise
        if (missing := without_credentials(error)) is not None:
            raise LakeError(f"{doing}: {missing}") from error
        number = _number(error)
        if number in DENIED or isinstance(error, PermissionError):
            raise LakeError(
                f"{doing}: access denied ({plain(error)}); check the AWS credentials, or the "
                "permissions of the folder"
            ) from error
        if number in FULL_OR_READ_ONLY:
            raise LakeError(
                f"{doing}: {plain(error)}; make room or make it writable, then run the same "
                "command again"
            ) from error
        raise Transient(
            f"{doing}: {plain(error)}; it may pass: run the same command again"
        ) from error


def _number(error: Exception) -> int | None:
    """The operating system's number for an error, if it has one."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    named = _ERROR_NUMBER.search(str(error))
    return int(named.group(1)) if named else None


def tried_again(doing: str, action: Callable[[int], Result]) -> Result:
    """Call ``action`` with the attempt's number, from 1, until it ends without a passing fault.

    The action must look at the table before it writes: an attempt whose reply was lost may have
    done its work. Raises the last ``Transient`` with what to do.
    """
    attempt = 1
    while True:
        try:
            with store_faults(doing):
                return action(attempt)
        except Transient as error:
            if attempt == STORE_ATTEMPTS:
                raise Transient(
                    f"could not {doing} in {STORE_ATTEMPTS} attempts "
                    f"({plain(error.__cause__ or error)}); look for another writer or a "
                    "failing store, then run the same command again"
                ) from error
        time.sleep(FIRST_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1.5))
        attempt += 1
