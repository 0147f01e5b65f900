"""What may be shown on a terminal: names and texts come from anywhere, and none may steer it."""

from __future__ import annotations

import logging
import re

STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but the tab and the line end: colours,
    # titles, links and moves of the cursor begin with one
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # order in which characters are shown
    "\u2028\u2029"  # line ends that a file of lines does not have
    "\ud800-\udfff]"  # half characters, which cannot be written
)


def harmless(text: str) -> str:
    r"""The text with what could steer a terminal as escapes, such as ``\x1b``; it keeps its tabs
    and line ends."""
    return STEERING.sub(_escape, text)


def harmless_line(text: str) -> str:
    r"""The text as one line: its line ends are escapes, too."""
    return harmless(text).replace("\n", r"\n")


def _escape(match: re.Match[str]) -> str:
    return repr(match.group())[1:-1]


class HarmlessLines(logging.Formatter):
    """The lines of another formatter, harmless."""

    def __init__(self, plain: logging.Formatter) -> None:
        super().__init__()
        self._plain = plain

    def format(self, record: logging.LogRecord) -> str:
        return harmless(self._plain.format(record))
