"""The token of a server, read from the environment when a request is made.

The variable holds a token for every server, or tokens by host: ``host=token,host:port=token``. It
is the only secret of the encoder, and no record holds it: not a recipe, not the description of a
model, not a log line. So it is read here, as the libraries of stores read theirs.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from embedding_core.recipe.endpoints import TOKEN

_BY_HOST = re.compile(r"([\w.-]+(?::\d+)?)=(?!=*$)(.+)")


def token_for(url: str) -> str | None:
    """The token that goes to the server at ``url``; None sends none."""
    tokens = _tokens(os.environ.get(TOKEN, ""))
    parts = urlsplit(url)
    return tokens.get(parts.netloc) or tokens.get(parts.hostname or "") or tokens.get("")


def _tokens(text: str) -> dict[str, str]:
    """Tokens by host; ``""`` has the token of every host."""
    tokens = {}
    for entry in filter(None, map(str.strip, text.split(","))):
        by_host = _BY_HOST.fullmatch(entry)
        host, token = by_host.groups() if by_host else ("", entry)
        tokens[host] = token
    return tokens
