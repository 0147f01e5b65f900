"""Paths to fields: names into objects and numbers into lists, ``messages[-1].content``.

    title                      a field
    meta.author                a field of an object
    tags[0]   turns[-1].text   an item of a list: from 0 on, or from the end
    meta['No. [kg]'].unit      a name in quotes may hold anything

Quotes are single or double; the quote itself is written twice inside them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

QUOTED = r"""'(?:[^']|'')*'|"(?:[^"]|"")*\""""
"""A text in quotes, which are doubled inside it."""
_NAME = re.compile(r"[^.\[\]]+")
_NUMBER = re.compile(r"\[(-?[0-9]{1,9})\]")
_QUOTED_NAME = re.compile(rf"\[({QUOTED})\]")
_HELP = "write names.with.dots, items[0] or items[-1], and ['any name'] for other names"

Step = str | int
"""A name into an object, or a number into a list."""


@dataclass(frozen=True, slots=True)
class FieldPath:
    """Where a value is in a record."""

    written: str
    """The path as the recipe has it."""
    steps: tuple[Step, ...]
    """From the record to the value; the first is a name."""
    starts: tuple[int, ...]
    """Where each step begins in ``written``, as an offset in characters; the dot is left out."""

    @classmethod
    def parse(cls, written: str) -> FieldPath:
        """Read a path. Raises ``ValueError`` with the position of the fault and the way out."""
        steps: list[Step] = []
        starts: list[int] = []
        at = 0
        while at < len(written) or not steps:
            at = at + 1 if steps and written[at] == "." else at
            step, end = _step(written, at, is_first=not steps)
            steps.append(step)
            starts.append(at)
            at = end
        return cls(written, tuple(steps), tuple(starts))

    @property
    def root(self) -> str:
        """The field of the record that the path begins at."""
        return str(self.steps[0])

    @property
    def is_name(self) -> bool:
        """Whether the path is a field's name and no more."""
        return len(self.steps) == 1

    @property
    def key(self) -> str:
        """What readers of columns hand the values over as: a field's own name, quotes taken off, or
        the whole path."""
        return self.root if self.is_name else self.written

    def rest(self, number: int) -> str | None:
        """The path from a step on, when that could be a field's name: it begins with no bracket."""
        text = self.written[self.starts[number] :]
        return None if text.startswith("[") else text


def unquoted(text: str) -> str:
    """What a text in quotes says; a text without quotes as it is."""
    if re.fullmatch(QUOTED, text, re.DOTALL) is None:
        return text
    return text[1:-1].replace(text[0] * 2, text[0])


def _step(written: str, at: int, is_first: bool) -> tuple[Step, int]:
    """The step that begins at an offset, and where it ends."""
    follows_a_dot = not is_first and written[at - 1] == "."
    if name := _QUOTED_NAME.match(written, at):
        if not follows_a_dot:
            return unquoted(name[1]), name.end()
        problem = "a name in brackets follows no dot"
    elif number := _NUMBER.match(written, at):
        if not is_first and not follows_a_dot:
            return int(number[1]), number.end()
        problem = "a number in brackets follows the name of a list"
    elif written[at : at + 1] == "[":
        problem = "brackets hold a number, or a name in quotes"
    elif is_first or follows_a_dot:
        if name := _NAME.match(written, at):
            return name[0], name.end()
        problem = "a name is missing"
    else:
        problem = "expected a dot or a bracket"
    raise ValueError(f"{written!r} is no path to a field: at character {at + 1} {problem}; {_HELP}")
