"""Markdown: the whole file is one document; fields of its front matter stand beside its text."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from io import RawIOBase

import yaml

from embedding_core.errors import words
from embedding_core.reasons import MALFORMED_FRONT_MATTER
from embedding_core.recipe.formats import Format
from embedding_core.recipe.yaml_values import GuardedLoader
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import (
    Fields,
    Flaw,
    Record,
    TextFormat,
    TextOptions,
)
from embedding_core.sources.formats.prose.text import file_fields, whole_text

FRONT_MATTER = re.compile(
    r"(?P<fence>---|\+\+\+)[ \t]*\r?\n(?P<fields>.*?)(?:(?<=\n)(?P=fence))[ \t]*(?:\r?\n|\Z)",
    re.DOTALL,
)
"""YAML between two lines of dashes, or TOML between two of pluses, at the very beginning."""
MAX_FRONT_MATTER = 64 * 1024
"""Characters of front matter that are parsed."""
LONG_KEY = re.compile(r"""(?:(?:[\w-]+|"(?:[^"\\]|\\.)*"|'[^']*')[ \t]*\.[ \t]*){100}""")
"""A TOML key of more parts than can be read: the time for them grows with their square."""


class Markdown(TextFormat):
    """A file is one document, so that it has no spans; the text is as it is written."""

    suffixes = (".md", ".markdown")
    options: TextOptions = TextOptions()

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """A record with ``text``, ``name``, ``uri`` and the fields of the front matter, which do
        not take the place of these three; an empty file has none."""
        text = whole_text(stream, self.options.encoding)
        if isinstance(text, Flaw):
            yield text
            return
        front = FRONT_MATTER.match(text[: 2 * MAX_FRONT_MATTER])
        try:
            values = _values(front["fence"], front["fields"]) if front else None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            detail = words(error).replace("\n", " ")
            yield Flaw(
                0, MALFORMED_FRONT_MATTER, f"{detail}; correct it, or begin with a blank line"
            )
            return
        if front is not None and values is not None:
            text = text[front.end() :]
        if text or values:
            yield Record(0, {**(values or {}), "text": text, **file_fields(file)})

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``."""
        return file.size_bytes or None


MARKDOWN: Format = Markdown()


def _values(fence: str, written: str) -> dict[str, object] | None:
    """The fields of front matter; None where it is no mapping but a text between two rules.

    Raises ``ValueError`` or ``YAMLError`` for what cannot be read.
    """
    if len(written) > MAX_FRONT_MATTER:
        raise ValueError(f"front matter of more than {MAX_FRONT_MATTER} characters")
    if fence == "+++" and LONG_KEY.search(written):
        raise ValueError("a key of more than 100 parts")
    values = tomllib.loads(written) if fence == "+++" else yaml.load(written, GuardedLoader)
    if values is None and not written.strip():
        return {}
    return (
        {str(name): value for name, value in values.items()} if isinstance(values, dict) else None
    )
