"""What a fault of a store means; each room makes its own error of it."""

from __future__ import annotations

import errno
from enum import Enum

from embedding_core.errors import words

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
NO_PATH = (
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENODEV,
    errno.ENOSYS,
    errno.ENOTDIR,
    errno.ENXIO,
    errno.EOPNOTSUPP,
)
"""Numbers of a path that can never be what it is asked to be."""

CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN too for temporary ones), "
    "or AWS_PROFILE to a profile in ~/.aws/credentials; a public bucket is read with "
    "storage.anonymous: true in the recipe"
)
"""What to do where no credentials were found."""


class Fault(Enum):
    """What an error of s3fs, botocore, aiohttp or the operating system says."""

    GONE = "there is no such bucket, object or file"
    DENIED = "the store or the folder refuses"
    CHANGED = "it is not what the request expected (HTTP 412)"
    EXISTS = "another writer was first (HTTP 409)"
    FULL = "no room, or read-only"
    PASSING = "it may pass: no answer, 408, 429, 5xx"
    FINAL = "the request or the path itself is wrong"


_BY_STATUS = {
    401: Fault.DENIED,
    403: Fault.DENIED,
    404: Fault.GONE,
    408: Fault.PASSING,
    409: Fault.EXISTS,
    412: Fault.CHANGED,
    429: Fault.PASSING,
}


def fault_of(error: BaseException) -> Fault:
    """Classify an error by its class, its number and its HTTP status, never by its message."""
    if isinstance(error, FileNotFoundError):
        return Fault.GONE
    if isinstance(error, PermissionError) or without_credentials(error) is not None:
        return Fault.DENIED
    if isinstance(error, FileExistsError):
        return Fault.EXISTS
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return Fault.FULL
    status = status_of(error)
    if status is not None:
        return fault_of_status(status)
    if isinstance(error, OSError) and error.errno in NO_PATH:
        return Fault.FINAL
    return Fault.PASSING if _may_pass(error) else Fault.FINAL


def fault_of_status(status: int) -> Fault:
    """Classify an HTTP status of 400 or more."""
    return _BY_STATUS.get(status, Fault.PASSING if status >= 500 else Fault.FINAL)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, when the store answered at all."""
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            status: int | None = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status
    return None


def without_credentials(error: BaseException | None) -> str | None:
    """What an error says of credentials that this process does not have, and what to do; None for
    any other error."""
    from botocore.exceptions import (  # only S3 needs it loaded
        CredentialRetrievalError,
        NoCredentialsError,
        PartialCredentialsError,
        ProfileNotFound,
    )

    missing = CredentialRetrievalError | NoCredentialsError | PartialCredentialsError
    cause = error.__cause__ if isinstance(error, OSError) else None
    for candidate in (error, cause):
        if isinstance(candidate, missing | ProfileNotFound):
            return f"{words(candidate)}; {CREDENTIALS}"
    return None


def _may_pass(error: BaseException) -> bool:
    """Whether another try may succeed where the store gave no answer."""
    from botocore.exceptions import BotoCoreError, EndpointConnectionError, HTTPClientError

    if isinstance(error, BotoCoreError):
        return isinstance(error, EndpointConnectionError | HTTPClientError)
    return not isinstance(error, ValueError | TypeError)
