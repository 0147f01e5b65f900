"""The headings of a Markdown text, and the path of headings above each of its characters."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType

PATH_SEPARATOR = " > "
HEADING_CHARACTERS = 500
"""Characters of a heading that are kept: they stand in the row of every chunk below it."""
_LINE_END = re.compile(r"\r\n?|\n")


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading, from its first character to the end of its last line."""

    start: int
    end: int
    above: tuple[str, ...]
    """The texts of the headings above it, the highest first; empty ones are left out."""
    title: str
    """Its own text, perhaps empty."""

    @property
    def path(self) -> tuple[str, ...]:
        """Its text, behind those of the headings above it."""
        return (*self.above, self.title) if self.title else self.above


@dataclass(frozen=True, slots=True)
class Outline:
    """The headings in order; those in lists and quotes are no part of it."""

    headings: tuple[Heading, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, text: str, markdown_it: ModuleType) -> Outline:
        """Parse a text by the rules of CommonMark, blocks alone."""
        parser = markdown_it.MarkdownIt("commonmark")
        parser.core.ruler.disable("inline")
        tokens = parser.parse(text)
        lines = [0, *(match.end() for match in _LINE_END.finditer(text)), len(text)]
        path: list[tuple[int, str]] = []
        headings: list[Heading] = []
        for opening, content in pairwise(tokens):
            if opening.type != "heading_open" or opening.level:
                continue
            depth = int(opening.tag[1:])
            title = " ".join(content.content.split())[:HEADING_CHARACTERS].rstrip()
            path = [(level, words) for level, words in path if level < depth]
            first, after = opening.map
            start, end = lines[first], lines[min(after, len(lines) - 1)]
            start += len(text[start:end]) - len(text[start:end].lstrip())
            above = tuple(words for _, words in path if words)
            headings.append(Heading(start, end, above, title))
            path.append((depth, title))
        return cls(tuple(headings), tuple(heading.start for heading in headings))

    def section(self, start: int) -> tuple[str, ...]:
        """The path of the section that a character is in."""
        number = bisect_right(self.starts, start) - 1
        return self.headings[number].path if number >= 0 else ()

    def above(self, start: int) -> tuple[str, ...]:
        """The path above a text that starts here; a heading that it shows itself is left out."""
        number = bisect_right(self.starts, start) - 1
        if number < 0:
            return ()
        heading = self.headings[number]
        return heading.above if start < heading.end else heading.path
