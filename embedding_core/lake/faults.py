"""Telling store faults that may pass from those that will not, by class, and trying again."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa
from botocore.exceptions import BotoCoreError, NoCredentialsError

from embedding_core.errors import LakeError, Transient

Result = TypeVar("Result")

FULL_OR_READ_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

LANCE_IO = "LanceError(IO)"
"""What Arrow says of a fault of the store in the middle of a scan; its class does not tell."""

ATTEMPTS = 5
"""Tries when another writer or a store fault comes between; pauses double from 0.4 s."""
FIRST_PAUSE_SECONDS = 0.2


@contextmanager
def store_faults(doing: str) -> Iterator[None]:
    """Classify what Lance and s3fs raise while ``doing`` something.

    A refused access and a full disk are a ``LakeError``; every other ``OSError`` (Lance raises its
    I/O and commit errors as such) is ``Transient``: tried again a few times, then reported with its
    cause.
    """
    try:
        yield
    except (PermissionError, NoCredentialsError) as error:
        raise LakeError(
            f"{doing}: access denied ({error}); check the AWS credentials, or the permissions of "
            "the folder"
        ) from error
    except (OSError, BotoCoreError) as error:
        if isinstance(error, OSError) and error.errno in FULL_OR_READ_ONLY:
            raise LakeError(
                f"{doing}: {error}; make room or make it writable, then run the same command again"
            ) from error
        raise Transient(f"{doing}: {error}") from error
    except pa.ArrowInvalid as error:
        if LANCE_IO not in str(error):
            raise
        raise Transient(f"{doing}: {error}") from error


def tried_again(doing: str, action: Callable[[int], Result]) -> Result:
    """``action`` of the attempt's number, from 1, until no store fault that may pass comes of it.

    The action must look at what is there before it writes: an attempt whose reply was lost may
    have done its work. Raises the last ``Transient`` with what to do.
    """
    attempt = 1
    while True:
        try:
            with store_faults(doing):
                return action(attempt)
        except Transient as error:
            if attempt == ATTEMPTS:
                raise Transient(
                    f"could not {doing} in {ATTEMPTS} attempts ({error}); look for another "
                    "writer or a failing store, then run the same command again"
                ) from error
        time.sleep(FIRST_PAUSE_SECONDS * 2**attempt * random.uniform(0.5, 1.5))
        attempt += 1
