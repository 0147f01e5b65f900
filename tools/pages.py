"""Tables of the documentation that follow the code: options of commands, fields of recipes.

    python -m tools.pages            write them into docs/cli.md and docs/recipes.md
    python -m tools.pages --check    name the tables that are stale; the exit code is then 1

The code decides which rows a table has, their order, how an option is written, and the default.
The words of a row are written in the page by hand and kept; a new row begins with the words of the
code.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from embedding_core.recipe import Recipe, section_variants
from embedlake.cli.main import cli

DOCS = Path(__file__).resolve().parents[1] / "docs"
OPTIONS = ("option", "default", "")
FIELDS = ("field", "default", "meaning", "a change")
UNNAMED_VALUES = {"integer": "N", "integer range": "N", "float": "N", "float range": "N"}
"""What the value of an option is called that names none, by click's name of its type."""


@dataclass(frozen=True, slots=True)
class Row:
    """What the code says of an option or a field."""

    key: str
    """The option's first name, or the field with its sections."""
    shown: str
    """The first cell."""
    default: str | None
    """None where the code has no value: then the page may say what happens."""
    words: str
    """The meaning, for a row that the page does not have yet."""


def command_page(text: str) -> str:
    """The page of the command line with a table of options under the heading of each command."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return "".join(map(_with_options, parts))


def _with_options(part: str) -> str:
    heading = re.match(r"## `embedlake ([a-z-]+)", part)
    if heading is None or heading[1] not in cli.commands:
        return part
    rows = list(option_rows(cli.commands[heading[1]]))
    return _with_table(part, OPTIONS, rows) if len(rows) > 1 else part


def option_rows(command: click.Command) -> Iterator[Row]:
    """The options of a command in the order of its ``--help``."""
    context = click.Context(command)
    for option in command.params:
        if isinstance(option, click.Option):
            value = "" if option.is_flag else f" {_value_of(option)}"
            names = ", ".join(f"`{name}`" for name in option.opts[:-1])
            shown = f"`{option.opts[-1]}{value}`"
            yield Row(
                max(option.opts, key=len),
                f"{names}, {shown}" if names else shown,
                _default_of_option(option, context),
                _within_a_table(option.help or ""),
            )


def _value_of(option: click.Option) -> str:
    """What stands for an option's value."""
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "\\|".join(map(str, option.type.choices))
    return UNNAMED_VALUES.get(option.type.name, option.opts[-1].strip("-").upper())


def _default_of_option(option: click.Option, context: click.Context) -> str:
    if option.required:
        return "required"
    value = option.get_default(context)
    if option.is_flag or not isinstance(value, str | int | float | Path | tuple):
        return ""
    values = value if isinstance(value, tuple) else (value,)
    return ", ".join(f"`{item}`" for item in values)


def recipe_page(text: str) -> str:
    """The page of recipes with a table of fields under the heading of each section."""
    rows: dict[str, dict[str, Row]] = {}
    for row in field_rows(Recipe):
        section = row.key.partition(".")[0] if "." in row.key else "Top level"
        rows.setdefault(section, {}).setdefault(row.key, row)
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    return "".join(
        _with_table(part, FIELDS, rows[name].values()) if (name := _heading(part)) in rows else part
        for part in parts
    )


def _heading(part: str) -> str:
    return part.partition("\n")[0].removeprefix("## ")


def field_rows(section: type[BaseModel], prefix: str = "") -> Iterator[Row]:
    """Every field of a section and of those in it; a field of several variants comes more often."""
    for name, field in section.model_fields.items():
        variants = section_variants(field.annotation)
        for variant in variants.values():
            yield from field_rows(variant, f"{prefix}{name}.")
        if not variants:
            key = prefix + name
            words = _within_a_table((field.description or "").replace("``", "`"))
            yield Row(key, f"`{key}`", _default_of_field(field), words)


def _within_a_table(sentence: str) -> str:
    """Words of the code as the cell of a table: one line that begins small and has no full stop."""
    words = " ".join(sentence.split()).removesuffix(".").replace("|", "\\|")
    return words[:1].lower() + words[1:] if words[1:2].islower() else words


def _default_of_field(field: FieldInfo) -> str | None:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, str) and value.isprintable() and value:
        return f"`{value}`"
    if isinstance(value, Sequence) and value and not isinstance(value, str):
        items = yaml.safe_dump(list(value), default_flow_style=True, width=1000)
        return f"`{items.strip()}`"
    return None


def _with_table(part: str, columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A part of a page with its first table of these columns made again, or put below its first
    paragraph."""
    head = _row(columns)
    before, _, after = part.partition(head + "\n")
    lines = after.splitlines(keepends=True)
    n_lines = next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))
    written = {key: cells for line in lines[1:n_lines] for key, cells in _cells(line)}
    made = [head, _row(["---"] * len(columns)).replace(" ", "")]
    made += [_row(_merged(row, written, len(columns))) for row in rows]
    table = "\n".join(made) + "\n"
    if not after:
        heading, paragraph, rest = part.split("\n\n", 2)
        return f"{heading}\n\n{paragraph}\n\n{table}\n{rest}"
    return before + table + "".join(lines[n_lines:])


def _row(cells: Sequence[str]) -> str:
    return f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|"


def _cells(line: str) -> Iterator[tuple[str, list[str]]]:
    """The cells of a row after the first, by what the first names."""
    _, first, *others, _ = (cell.strip() for cell in re.split(r"(?<!\\)\|", line))
    for name in re.findall(r"`([\w.-]+)", first):
        yield name, others


def _merged(row: Row, written: Mapping[str, list[str]], n_columns: int) -> list[str]:
    default, *words = written.get(row.key, ["", row.words, *[""] * (n_columns - 3)])
    if row.default is None:
        default = default or "none"
    elif not default.startswith(row.default) or not row.default:
        default = row.default
    return [row.shown, default, *words]


PAGES = {"cli.md": command_page, "recipes.md": recipe_page}


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or say which are stale."""
    stale = []
    for name, made in PAGES.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        if made(text) != text:
            stale.append(name)
            if "--check" not in arguments:
                (DOCS / name).write_text(made(text), encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"docs/{', docs/'.join(stale)}: not as the code has it; run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
