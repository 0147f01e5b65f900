"""Requests to an S3 server, signed without the weight of a client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from http.client import HTTPConnection

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def signed(
    method: str, host: str, path: str, headers: Mapping[str, str], body: bytes
) -> dict[str, str]:
    """The headers of a request with a signature over them, by the key in the environment."""
    request = AWSRequest(method, f"http://{host}{path}", headers=dict(headers), data=body)
    key = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    S3SigV4Auth(key, "s3", os.environ["AWS_REGION"]).add_auth(request)
    return dict(request.headers.items())


def put(host: str, path: str, body: bytes) -> None:
    """Write an object."""
    connection = HTTPConnection(host)
    connection.request("PUT", path, body, signed("PUT", host, path, {}, body))
    answer = connection.getresponse()
    if answer.status != 200:
        raise OSError(f"PUT {path}: {answer.status} {answer.read()!r}")
    connection.close()
