"""Text templates: a field name, or fields set into literal text."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

from embedding_core.errors import UsageError

_HELP = 'use a field name, or "{title}\\n{text}" with "{{" and "}}" for literal braces'


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """How a document's text is made from its record."""

    written: str
    """The template as the recipe has it."""
    fields: tuple[str, ...]
    """Names of the fields used, each once, in order of first use."""
    is_plain: bool
    """Whether the template is just a field name, which then must hold a string."""

    @classmethod
    def parse(cls, template: str, option: str = "source.text") -> TextTemplate:
        """Read the template of an option; without braces, all of it is one field's name.

        Raises ``UsageError`` for anything beyond ``{field}`` and doubled braces, and for a
        template without any field: every document would have the same text.
        """
        if not template:
            raise UsageError(f"{option} is empty; {_HELP}")
        if not set("{}") & set(template):
            return cls(template, (template,), is_plain=True)
        try:
            parsed = list(string.Formatter().parse(template))
        except ValueError as error:
            raise UsageError(f"{option} {template!r}: {error}; {_HELP}") from error
        names = (_field(option, template, *rest) for _, *rest in parsed)
        fields = tuple(dict.fromkeys(name for name in names if name is not None))
        if not fields:
            raise UsageError(f"{option} {template!r} names no field; {_HELP}")
        return cls(template, fields, is_plain=False)

    def render(self, values: Mapping[str, str]) -> str:
        """The text; ``values`` holds a string for each of ``fields``, set in unchanged."""
        return values[self.written] if self.is_plain else self.written.format_map(values)


def _field(
    option: str,
    template: str,
    name: str | None,
    spec: str | None = None,
    conversion: str | None = None,
) -> str | None:
    if name is None:
        return None
    if not name or spec or conversion or set(".[]") & set(name):
        shown = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
        raise UsageError(f"{option} {template!r}: {{{shown}}} is not a field name; {_HELP}")
    return name
