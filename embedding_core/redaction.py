"""Secrets in URLs: what may not be written down, and words without it.

Recipes, tables, logs and messages are kept and shown, so a URI that opens what it names is refused
where it comes in, and what other libraries say of URLs is shown without what may be secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

SECRET_PARAMETERS = frozenset(
    [
        "access_key",
        "access_token",
        "api_key",
        "apikey",
        "auth",
        "client_secret",
        "id_token",
        "jwt",
        "key",
        "passwd",
        "password",
        "private_token",
        "pwd",
        "secret",
        "sig",
        "signature",
        "token",
        "x-amz-credential",
        "x-amz-security-token",
        "x-amz-signature",
        "x-goog-credential",
        "x-goog-signature",
    ]
)
"""Names of parameters that open what a URL names."""

WEB = ("http", "https")

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BEFORE_AT = re.compile(r"(?<![^\s@])[^\s@]++@")
"""What stands before an ``@``, back to a space. Texts may be long and hostile: each pattern looks
at a character a few times at most."""
_LOGIN = re.compile(r"(?<=://)[^\s/@:]*+:(?!\d+/)")
"""The beginning of a user name and a password, which an ``@`` ends. A key may have a slash: only a
port shows that none follows."""
_WEB_USER = re.compile(r"(?<=http://)[^\s/@?#]*@|(?<=https://)[^\s/@?#]*@", re.I)
_WORD = re.compile(r"\S+")
_WEB_URL = re.compile(r"https?://", re.I)
_QUERY = re.compile(r"\?[^\s\"'<>]*")
_PARAMETER = re.compile(
    rf"([?&](?:{'|'.join(map(re.escape, sorted(SECRET_PARAMETERS)))})=)[^&\s\"'<>]*", re.I
)


def secret_in(uri: str) -> str | None:
    """What a URI holds that may be kept nowhere, in words that do not repeat it; None for nothing.

    A name without a scheme is no URI and holds nothing.
    """
    if not _URI.match(uri):
        return None
    try:
        parts = urlsplit(uri)
    except ValueError:  # as little a URL to whoever would open it
        return None
    has_user = parts.scheme.lower() in WEB and parts.username is not None
    if has_user or parts.password is not None or _has_login(uri):
        return "holds a user name or a password"
    names = (name for name, value in parse_qsl(parts.query) if value)
    secret = next((name for name in names if name.lower() in SECRET_PARAMETERS), None)
    if secret is not None:
        return f"is signed or holds a key (the parameter {secret})"
    return None


def redacted(text: str) -> str:
    """Words whose URLs have no user names, no passwords, and nothing that may be a key."""
    if "://" not in text:
        return text
    text = _WEB_USER.sub("", _BEFORE_AT.sub(_without_login, text))
    return _PARAMETER.sub(r"\1…", _WORD.sub(_without_queries, text))


def _has_login(uri: str) -> bool:
    return any(_LOGIN.search(before.group()) for before in _BEFORE_AT.finditer(uri))


def _without_login(before_at: re.Match[str]) -> str:
    login = _LOGIN.search(before_at.group())
    return before_at.group() if login is None else before_at.group()[: login.start()]


def _without_queries(word: re.Match[str]) -> str:
    """A word without what follows the question marks of its web URLs."""
    text, start = word.group(), 0
    kept: list[str] = []
    while (url := _WEB_URL.search(text, start)) and (query := _QUERY.search(text, url.end())):
        kept.append(text[start : query.start()])
        start = query.end()
    return "".join([*kept, text[start:]])


def without_secrets(values: Any) -> Any:
    """Plain values whose URLs are ``redacted``, however deep they stand."""
    if isinstance(values, str):
        return redacted(values)
    if isinstance(values, Mapping):
        return {name: without_secrets(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_secrets(value) for value in values]
    return values
