"""The token of a server, read from the environment when a request is made.

The variable holds a token for every server, or tokens by host: ``host=token,host:port=token``. It
is the only secret of the encoder, and no record holds it: not a recipe, not the description of a
model, not a log line. So it is read here, as the libraries of stores read theirs.
"""

from __future__ import annotations

import os
import re
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
    host = urlsplit(url).netloc.lower()
    return tokens.get(host) or tokens.get(_PORT.sub("", host)) or tokens.get("")


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
