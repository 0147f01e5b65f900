"""The frame of every page: one self-contained document that asks no server for anything.

Templates of Jinja escape whatever they are given. A page's policy for the browser names the digests
of its style and script, so nothing that a document might smuggle in could run or be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from embedding_core.errors import SetupError, UsageError, words
from embedding_core.store import storage
from embedding_core.store.storage import StorageSpec

MARK = b'<meta name="generator" content="embedlake">'
"""What every page has in its first ``MARK_WITHIN`` bytes, and no other file."""
MARK_WITHIN = 512
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Characters that HTML may not hold."""
JSON_ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})
"""Characters of JSON that would end a script or mean something to HTML."""


@cache
def asset(name: str) -> str:
    """The text of a file beside this module: a style or a script."""
    return files(__package__).joinpath(name).read_text("utf-8")


def page(
    template: str, styles: tuple[str, ...] = (), scripts: tuple[str, ...] = (), **values: Any
) -> str:
    """A whole document from a template that extends ``base.html``.

    ``styles`` and ``scripts`` are assets beside those that every page has; ``values`` are what the
    template shows.
    """
    style = "".join(map(asset, ("style.css", *styles)))
    script = "".join(map(asset, ("theme.js", *scripts)))
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src {_digest(style)}",
            f"script-src {_digest(script)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    frame = {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}
    return _templates().get_template(template).render(**frame, **values)


def write_page(uri: str, document: str, spec: StorageSpec) -> None:
    """Write a page to a path or ``s3://`` URI; it appears whole or not at all.

    Raises ``SetupError`` where it cannot be written, and as ``check_replaceable``.
    """
    check_replaceable(uri, spec)
    try:
        storage.write_bytes(uri, document.encode(), spec)
    except OSError as error:
        raise SetupError(f"the page {uri} cannot be written: {words(error)}") from error


def check_replaceable(uri: str, spec: StorageSpec) -> None:
    """Raise ``UsageError`` where a page would overwrite something else, a recipe perhaps.

    Another page and an empty file may be overwritten. Raises ``SetupError`` where the store cannot
    be read.
    """
    try:
        head = storage.read_bytes(uri, spec, MARK_WITHIN)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SetupError(f"the page {uri} cannot be written: {words(error)}") from error
    if head and MARK not in head:
        raise UsageError(
            f"{uri} is there and is no page that embedlake wrote, so it is not overwritten; name "
            "another file, or remove that one"
        )


def quoted(text: str) -> Markup:
    """A document's text: whatever its script and direction, it stays inside its element."""
    return Markup('<span class="quoted" dir="auto">{}</span>').format(clean(text))


def data_block(name: str, data: Mapping[str, Any]) -> Markup:
    """Data for a script, which reads the element ``name``; never run as code."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).translate(JSON_ESCAPES)
    return Markup(f'<script type="application/json" id="{escape(name)}">{text}</script>')


def clean(value: Any) -> Any:
    """A value without the characters that HTML may not hold."""
    return value if isinstance(value, Markup) else CONTROL.sub("\ufffd", str(value))


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("embedding_core.reports", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"quoted": quoted, "number": "{:,}".format, "share": "{:.1%}".format}
    return environment


def _digest(content: str) -> str:
    sha = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{sha}'"
