"""Commands that a page of the documentation shows, each with what it prints."""

from __future__ import annotations

import re
from collections.abc import Iterator


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a page's ``console`` blocks, each with the lines that are shown below it.

    Lines that belong to a quoted argument belong to its command.
    """
    shown = "".join(re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    for block in re.split(r"^\$ ", shown, flags=re.MULTILINE)[1:]:
        command, *lines = block.splitlines()
        while command.count('"') % 2:
            command = f"{command}\n{lines.pop(0)}"
        yield command, lines


def unlike(shown: list[str], printed: str) -> list[str]:
    """Lines that are shown and not printed, or not in that order; ``…`` stands for anything."""
    lines = iter(printed.splitlines())
    patterns = [(line, ".*".join(map(re.escape, line.split("…")))) for line in shown]
    return [line for line, pattern in patterns if not any(re.fullmatch(pattern, p) for p in lines)]
