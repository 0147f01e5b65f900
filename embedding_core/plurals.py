"""Numbers of things in words, as every message, report and notice says them."""

from __future__ import annotations


def counted(number: float, thing: str, things: str | None = None) -> str:
    """A number of things: ``1 file``, ``2,000 queries``.

    ``things``: the plural, where more than a noun depends on the number: ``counted(n, "file is",
    "files are")``.
    """
    if number == 1:
        return f"1 {thing}"
    shown = f"{int(number):,}" if number == int(number) else f"{number:g}"
    return f"{shown} {things or _plural(thing)}"


def _plural(noun: str) -> str:
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return f"{noun}{'es' if noun.endswith('x') else 's'}"
