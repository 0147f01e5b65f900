r"""Text templates: a path to a field, or paths set into literal text.

    text                        without braces, all of it is a path
    {title}\n{text}             a path in braces stands for the field's value
    {title|untitled}  {title|}  what follows the bar stands for a field that is missing or null
    {title|"a { or }"}          a default in quotes may hold braces
    {{  }}                      a brace of the literal text

The quote itself is written twice inside quotes. A bar within a default is a bar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from embedding_core.recipe.mapping.field_path import QUOTED, FieldPath, unquoted

_LITERAL = re.compile(r"(?:[^{}]|\{\{|\}\})+")
_PLACEHOLDER = re.compile(
    rf"\{{(?P<path>(?:\[(?:{QUOTED})\]|[^|{{}}])*+)(?:\|(?P<default>{QUOTED}|[^{{}}]*))?\}}"
)
_FORMAT_MARKS = re.compile(r"[!:]")
_HELP = (
    'use a field name, or "{title|untitled}\\n{text}" with "{{" and "}}" for literal braces, and '
    "{['a name']} for a name with marks"
)


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Stands in a template for the value of a field."""

    path: FieldPath
    default: str | None
    """The text for a field that is missing or null; without one such a record is rejected."""


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """How a document's text is made from its record."""

    pieces: tuple[str | Placeholder, ...]
    """Literal texts and placeholders, in order."""
    is_plain: bool
    """Whether the template is just a path, whose value must be a string then."""

    @classmethod
    def parse(cls, template: str) -> TextTemplate:
        """Read a template.

        Raises ``ValueError`` with the position of what cannot be read, and for a template without
        any field: every document would have the same text.
        """
        if not template:
            raise ValueError(f"the template is empty; {_HELP}")
        if not set("{}") & set(template):
            return cls((Placeholder(FieldPath.parse(template), None),), is_plain=True)
        pieces: list[str | Placeholder] = []
        at = 0
        while at < len(template):
            piece, at = _piece(template, at)
            pieces.append(piece)
        if all(isinstance(piece, str) for piece in pieces):
            raise ValueError(f"{template!r} names no field; {_HELP}")
        return cls(tuple(pieces), is_plain=False)

    @property
    def placeholders(self) -> tuple[Placeholder, ...]:
        """The placeholders in order."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Placeholder))


def _piece(template: str, at: int) -> tuple[str | Placeholder, int]:
    """The piece that begins at an offset, and where it ends."""
    if literal := _LITERAL.match(template, at):
        return literal[0].replace("{{", "{").replace("}}", "}"), literal.end()
    match = _PLACEHOLDER.match(template, at)
    where = f"{template!r}, character {at + 1}"
    if match is None:
        problem = "'}' closes nothing" if template[at] == "}" else "'{' is not closed"
        raise ValueError(f"{where}: {problem}; {_HELP}")
    try:
        path = FieldPath.parse(match["path"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if any(_FORMAT_MARKS.search(name) for name in _names_as_written(path)):
        raise ValueError(f"{where}: {match['path']!r} is no field name; {_HELP}")
    default = match["default"]
    return Placeholder(path, None if default is None else unquoted(default)), match.end()


def _names_as_written(path: FieldPath) -> list[str]:
    """The names of a path that stand there without quotes."""
    return [
        step
        for step, start in zip(path.steps, path.starts, strict=True)
        if isinstance(step, str) and path.written[start] != "["
    ]
