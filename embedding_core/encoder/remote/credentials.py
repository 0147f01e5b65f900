"""The token of a server, read from the environment when a request is made.

The variable holds a token for every server, or tokens by host: ``host=token,host:port=token``. It
is the only secret of the encoder, and no record holds it: not a recipe, not the description of a
model, not a log line. So it is read here, as the libraries of stores read theirs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from embedding_core.errors import ModelError
from embedding_core.recipe.endpoints import TOKEN

_ENTRY = re.compile(
    r"(?:(?P<host>(?:\[[\da-f:.]+\]|[\w.-]+)(?::\d+)?)=(?!=*$))?(?P<token>[!-<>-~]+=*)", re.I | re.A
)
"""A token is printable ASCII with ``=`` at its end alone, so a host is never taken for a part."""
_PORT = re.compile(r":\d*$")


def token_for(url: str) -> str | None:
    """The token that goes to the server at ``url``; None sends none. Raises ``ModelError`` for a
    variable that cannot be read, in words that do not repeat it."""
    tokens = _tokens(os.environ.get(TOKEN, ""))
    host = _host(url)
    return tokens.get(host) or tokens.get(_PORT.sub("", host)) or tokens.get("")


def check_meant_for(urls: Iterable[str], named: Iterable[str] = ()) -> None:
    """Raise ``ModelError`` where a token for every server would go to a server that a table alone
    names: whoever may write the table may have named it. ``named``: URLs that a person named."""
    others = sorted({_host(url) for url in urls} - {_host(url) for url in named})
    tokens = _tokens(os.environ.get(TOKEN, "")) if others else {}
    for host in others:
        if "" in tokens and not (host in tokens or _PORT.sub("", host) in tokens):
            raise ModelError(
                f"the table names a model at {host}, the recipe does not, and {TOKEN} holds a "
                f"token for every server, which is not sent there: write {host}=token into {TOKEN} "
                "if the server is yours, or name it in the recipe"
            )


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()


def _tokens(text: str) -> dict[str, str]:
    """Tokens by host; ``""`` has the token of every host."""
    tokens = {}
    for number, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ModelError(
                f"entry {number} of the environment variable {TOKEN} is neither a token nor "
                "host=token; write a host without https:// and path, and a token without spaces, "
                "line ends and characters beyond ASCII"
            )
        tokens[(match["host"] or "").lower()] = match["token"]
    return tokens
