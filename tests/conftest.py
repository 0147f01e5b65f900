"""Fixtures that several packages' tests share; each starts what it needs and stops it again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.s3 import S3Server, s3_server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the session, started by the first test that asks for it."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server
