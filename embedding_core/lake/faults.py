"""What Lance raises, as this package's errors: what it means is said by ``store.faults``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa
from botocore.exceptions import BotoCoreError

from embedding_core.errors import EmbedlakeError, LakeError, Transient, words
from embedding_core.store import retry
from embedding_core.store.faults import Fault, fault_of, without_credentials

Result = TypeVar("Result")

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

    Refused access, a full disk and an impossible path become a ``LakeError``. These become
    ``Transient``, to be tried again a few times and then reported with their cause:
    - every other ``OSError``: Lance raises its I/O and commit errors as such;
    - an ``ArrowInvalid`` about Lance's I/O: pyarrow turns whatever stops a scan into one;
    - a panic of Lance, which is not an ``Exception`` and would end a worker.
    """
    try:
        yield
    except BaseException as error:
        fault = store_fault(doing, error)
        if fault is None:
            raise
        raise fault from error


def store_fault(doing: str, error: BaseException) -> EmbedlakeError | None:
    """What ``store_faults`` makes of an error; None for an error that is no fault of a store."""
    if is_panic(error):
        return Transient(
            f"{doing}: Lance gave up in its middle ({plain(error)}); run the same command again, "
            "and look for damage if that ends the same way",
            action="verify",
        )
    is_arrow, message = isinstance(error, pa.ArrowInvalid), str(error)
    if not (is_arrow or isinstance(error, OSError | BotoCoreError)):
        return None
    if is_arrow and LANCE_IO not in message and not message.startswith(FILE_GONE):
        return None
    numbered = _numbered(error)
    if isinstance(numbered, NotADirectoryError):
        return LakeError(
            f"{doing}: {plain(error)}; a file is where a folder must be: correct the URI"
        )
    fault = fault_of(numbered)
    if fault is Fault.FINAL and isinstance(numbered, OSError) and numbered.errno is not None:
        return LakeError(f"{doing}: {plain(error)}; no lake can be there: correct lake.uri")
    if fault is Fault.DENIED:
        why = without_credentials(error) or (
            f"access denied ({plain(error)}); check the AWS credentials, or the permissions of the "
            "folder"
        )
        return LakeError(f"{doing}: {why}")
    if fault is Fault.FULL:
        return LakeError(
            f"{doing}: {plain(error)}; make room or make it writable, then run the same command "
            "again"
        )
    return Transient(f"{doing}: {plain(error)}; it may pass: run the same command again")


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust panicked. pyo3 raises it as a class that cannot be imported."""
    return type(error).__name__ == "PanicException"


def _numbered(error: BaseException) -> BaseException:
    """The error, as Python's own of the operating system's number that Lance wrote into it."""
    named = _ERROR_NUMBER.search(str(error))
    has_number = isinstance(error, OSError) and error.errno is not None
    return error if named is None or has_number else OSError(int(named[1]), str(error))


def tried_again(doing: str, step: Callable[[int], Result]) -> Result:
    """``store.retry.tried_again`` for a step that Lance does: its faults are classified first."""

    def classified(attempt: int) -> Result:
        with store_faults(doing):
            return step(attempt)

    return retry.tried_again(doing, classified, said=plain)
