"""Telling store faults that may pass from those that will not, by class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, NoCredentialsError

from embedding_core.errors import LakeError, Transient


@contextmanager
def store_faults(doing: str) -> Iterator[None]:
    """Classify what Lance and s3fs raise while ``doing`` something.

    A refused access is a ``LakeError``; every other ``OSError`` (Lance raises its I/O and commit
    errors as such) is ``Transient``: tried again a few times, then reported with its cause.
    """
    try:
        yield
    except (PermissionError, NoCredentialsError) as error:
        raise LakeError(f"{doing}: access denied ({error}); check the AWS credentials") from error
    except (OSError, BotoCoreError) as error:
        raise Transient(f"{doing}: {error}") from error
