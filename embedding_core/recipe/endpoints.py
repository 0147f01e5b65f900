"""URLs of servers in a recipe: what may stand in it, since recipes and tables keep no secrets."""

from __future__ import annotations

from urllib.parse import urlsplit

TOKEN = "EMBEDLAKE_ENGINE_TOKEN"
"""Environment variable with the token of a server."""


def checked_endpoint(url: str) -> str:
    """The URL. Raises ``ValueError``, in words that do not repeat its secrets, for another one."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError("the endpoint is no URL; write http://host:port or https://host/path")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            f"the URL of the endpoint at {parts.hostname} holds a user name or a password; remove "
            f"it, and put the token of the server into the environment variable {TOKEN}"
        )
    if parts.query or parts.fragment:
        raise ValueError(
            f"the URL of the endpoint at {parts.hostname} has something after its path, which may "
            "be a key; write scheme, host, port and path alone, and put a token into the "
            f"environment variable {TOKEN}"
        )
    return url
