"""The frame of every page: one self-contained document that asks no server for anything.

A page's content is made of ``escaped`` texts alone. Its policy for the browser names the digests of
its own style and script, so nothing that a document might smuggle in could run or be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
"""Characters that HTML may not hold."""
JSON_ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})
"""Characters of JSON that would end a script or mean something to HTML."""


@cache
def asset(name: str) -> str:
    """The text of a file beside this module: ``style.css``, or a script."""
    return files(__package__).joinpath(name).read_text("utf-8")


def escaped(value: object) -> str:
    """A value as text of a page, or of an attribute in double quotes."""
    return html.escape(CONTROL.sub("\ufffd", str(value)))


def quoted(text: str) -> str:
    """A document's text: whatever its script and direction, it stays inside its element."""
    return f'<span class="quoted" dir="auto">{escaped(text)}</span>'


def data_block(name: str, data: Mapping[str, Any]) -> str:
    """Data for a script, which reads the element ``name``; never run as code."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).translate(JSON_ESCAPES)
    return f'<script type="application/json" id="{escaped(name)}">{text}</script>'


def page(title: str, body: str, script: str = "", style: str = "") -> str:
    """A whole document. ``body`` is HTML; ``script`` and ``style`` are the page's own."""
    styles, scripts = asset("style.css") + style, asset("theme.js") + script
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src {_digest(styles)}",
            f"script-src {_digest(scripts)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escaped(title)}</title>\n<style>{styles}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#content">Skip to the content</a>\n{body}\n'
        f"<script>{scripts}</script>\n</body>\n</html>\n"
    )


def _digest(content: str) -> str:
    sha = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{sha}'"
