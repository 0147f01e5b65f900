"""Secrets in URLs: refused where they come in, and left out of what is said."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_core.errors import UsageError, words
from embedding_core.recipe import Recipe
from embedding_core.redaction import SECRET_PARAMETERS, redacted, secret_in, without_secrets
from embedding_core.reports.report import said
from embedding_core.store.storage import StorageSpec, is_local
from embedlake.settings import prefect_api_url
from tests.driver import recipe_for

SECRET = "Canary/7+secret=="
KEPT = (
    "http://127.0.0.1:8333/bucket/a@b.jsonl",
    "hf://datasets/owner/name@v1.0:split/file.jsonl",
    "s3://bucket/what?.jsonl",
    "s3://bucket/a:b@c.jsonl",
    "abfs://container@account.dfs.core.windows.net/in",
    "/a/path/with:colon@sign?token=no-url",
)
"""Names that hold nothing: they are shown as they are."""
OPEN = (
    f"http://me:{SECRET}@host:80/x",
    f"https://{SECRET.replace('/', '')}@host/x",
    f"s3://AKIA:{SECRET}@bucket/in",
    f"postgresql://prefect:{SECRET}@db/prefect",
    f"https://host/x.jsonl?X-Amz-Date=1&X-Amz-Signature={SECRET}",
    f"az://container/in?sig={SECRET}",
)


@pytest.mark.parametrize("uri", OPEN)
def test_uri_with_a_secret_is_told_and_shown_without_it(uri: str) -> None:
    problem = secret_in(uri)
    shown = redacted(f"cannot open '{uri}': status 403")
    assert problem is not None
    assert "Canary" not in problem + shown
    assert shown.startswith("cannot open '") and shown.endswith("': status 403")
    assert "Canary" not in words(OSError(f"cannot open {uri}"))
    assert "Canary" not in said(UsageError(f"cannot open {uri}", action="plan"))
    assert "Canary" not in str(without_secrets({"a": [{"b": (uri,)}]}))


@pytest.mark.parametrize("uri", KEPT)
def test_uri_without_a_secret_is_left_as_it_is(uri: str) -> None:
    assert secret_in(uri) is None
    assert redacted(f"cannot open {uri} now") == f"cannot open {uri} now"


SCHEMES = st.sampled_from(["http", "https", "s3", "gs", "az", "hf", "redis"])
HARMLESS = st.text("abcdefghij-._~%", max_size=12)
KEY_CHARACTERS = "ABCxyz0189+/=_-."


@given(SCHEMES, st.text("abc", max_size=3), st.text(KEY_CHARACTERS, max_size=9), HARMLESS)
def test_password_before_a_host_is_never_shown(scheme: str, user: str, key: str, path: str) -> None:
    uri = f"{scheme}://{user}:Canary{key}@host/{path}"
    assert secret_in(uri) is not None
    assert "Canary" not in redacted(f"at {uri}, and at {uri}")


@given(SCHEMES, st.sampled_from(sorted(SECRET_PARAMETERS)), st.booleans(), HARMLESS)
def test_secret_parameter_is_never_shown(scheme: str, name: str, upper: bool, path: str) -> None:
    uri = f"{scheme}://host/{path}?v=1&{name.upper() if upper else name}=Canary"
    assert secret_in(uri) is not None
    assert "Canary" not in redacted(f"({uri})")


@given(st.text(max_size=60))
def test_words_without_a_url_are_left_as_they_are(text: str) -> None:
    assert "://" in text or redacted(text) == text


def sections_with(uri: str) -> Iterator[dict[str, Any]]:
    for section in ("source", "lake"):
        yield {section: {"uri": uri}}
    for section in ("source", "model", "lake"):
        yield {section: {"storage": {"endpoint_url": uri}}}
    for field in ("name", "adapter", "tokenizer"):
        yield {"model": {"name": "owner/name", "dim": None, field: uri}}
    yield {"chunk": {"tokenizer": uri}}
    yield {"release": {"queries": uri}}
    yield {"release": {"qrels": uri}}


@pytest.mark.parametrize("uri", OPEN)
def test_recipe_with_a_secret_in_any_field_is_refused_without_repeating_it(
    tmp_path: Path, uri: str
) -> None:
    for changes in sections_with(uri):
        with pytest.raises(UsageError, match="environment") as caught:
            recipe_for(tmp_path, **changes)
        assert "Canary" not in str(caught.value), changes


@pytest.mark.parametrize("uri", OPEN)
def test_place_with_a_secret_is_refused_without_repeating_it(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError) as of_a_recipe:
        Recipe.load(uri)
    with pytest.raises(UsageError) as of_a_store:
        is_local(uri)
    with pytest.raises(ValueError, match="environment") as of_an_endpoint:
        StorageSpec(endpoint_url=uri)
    monkeypatch.setenv("PREFECT_API_URL", uri)
    with pytest.raises(UsageError, match="PREFECT_API_AUTH_STRING") as of_the_server:
        prefect_api_url()
    for caught in (of_a_recipe, of_a_store, of_an_endpoint, of_the_server):
        assert "Canary" not in str(caught.value)


@pytest.mark.parametrize(
    "piece", ["http://127.0.0.1:t", "http://", "http://a:", "://", "http://x?", "http://a@", "@"]
)
def test_long_texts_of_urls_take_time_by_their_length(piece: str) -> None:
    text = piece * 20_000
    started = time.process_time()
    redacted(text)
    secret_in(text)
    assert time.process_time() - started < 2, "0.03 s; with a search for each URL it takes minutes"
