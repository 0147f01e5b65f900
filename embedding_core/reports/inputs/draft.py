"""The report of a recipe that was proposed, and its YAML: every choice with its reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from embedding_core.plurals import counted
from embedding_core.reports.inputs.peek import PeekView
from embedding_core.reports.report import Report
from embedding_core.runs.inputs.drafting import Draft

COMMENT_COLUMN = 44
WIDTH = 120
UNUSED_SHOWN = 30
_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*")


@dataclass(frozen=True)
class DraftView(Report):
    """A proposed recipe: its text, and what the first file becomes by it."""

    record: ClassVar[type] = Draft
    draft: Draft
    path: Path = Path("recipe.yaml")
    """The recipe's file."""

    def summary(self) -> str:
        draft = self.draft
        formats = ", ".join(f"{n:,} {name}" for name, n in draft.formats.items())
        records = counted(draft.records, "record")
        return f"a recipe for {counted(draft.files, 'file')} ({formats}), by {records}"

    def lines(self) -> list[str]:
        draft = self.draft
        lines = [line for line in self.yaml().splitlines() if line.strip()]
        if draft.model_problem is not None:
            lines.append(
                f"the model cannot be read here, so the peek counts words: "
                f"{' '.join(draft.model_problem.split())}"
            )
        return [*lines, "what the first file becomes:", *PeekView(draft.peek).lines()]

    def data(self) -> dict[str, Any]:
        data = asdict(self.draft)
        return data | {"yaml": self.yaml(), "peek": PeekView(self.draft.peek).data()}

    def yaml(self) -> str:
        """The recipe as YAML with comments; ``yaml.safe_load`` gives the draft's content."""
        draft, name = self.draft, self.path.name
        head = [
            f"# {_said(self.summary())}. Read it and change what is wrong, then:",
            f"#   embedlake peek {_said(name)}    what a file becomes",
            f"#   embedlake plan {_said(name)}    what a run would do",
            f"#   embedlake embed {_said(name)}   does it",
        ]
        lines = list(_section_lines(draft.content, draft.why, "", 0))
        unused = [f"# not used: {_said(field)}" for field in draft.unused[:UNUSED_SHOWN]]
        if len(draft.unused) > UNUSED_SHOWN:
            unused.append(f"# … and {counted(len(draft.unused) - UNUSED_SHOWN, 'more field')}")
        return "\n".join([*head, *lines, *unused, ""])


def _section_lines(
    section: Mapping[str, Any], why: Mapping[str, str], above: str, depth: int
) -> Iterator[str]:
    """A key per line with its reason; below the top, only ``metadata`` is written out."""
    for key, value in section.items():
        path = f"{above}.{key}" if above else key
        indent = "  " * depth
        if isinstance(value, Mapping) and path in ("source", "source.metadata"):
            yield f"{indent}{_scalar(key)}:"
            yield from _section_lines(value, why, path, depth + 1)
        else:
            yield _with_reason(f"{indent}{_scalar(key)}: {_flow(value)}", why.get(path))


def _with_reason(line: str, reason: str | None) -> str:
    if reason is None:
        return line
    comment = f"# {_said(reason)}"
    if len(line) < COMMENT_COLUMN and COMMENT_COLUMN + len(comment) <= WIDTH:
        return f"{line.ljust(COMMENT_COLUMN)}{comment}"
    indent = line[: len(line) - len(line.lstrip())]
    return f"{indent}{comment}\n{line}"


def _flow(value: object) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_scalar(key)}: {_flow(inner)}" for key, inner in value.items())
        return f"{{{pairs}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_flow, value))}]"
    return _scalar(value) if isinstance(value, str) else json.dumps(value)


def _scalar(text: str) -> str:
    """A text without quotes where YAML reads it as the same text, else in double quotes."""
    if _PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    """A character between YAML's double quotes."""
    if char in '"\\':
        return f"\\{char}"
    if char == "\n":
        return "\\n"
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def _said(text: str) -> str:
    """A text that stays within its line of comment."""
    return "".join(char if char.isprintable() else " " for char in text)


REPORT = DraftView
