"""A message says ``1 file`` and ``2 files``: ``counted`` chooses the word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_core.plurals import counted

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("embedding_core", "embedlake", "flows")
THINGS = (
    "attempts|bits|bytes|cells|characters|chunks|columns|CPUs|dimensions|documents|"
    "duplicates|elements|failures|fields|files|folders|forks|fragments|GPUs|groups|"
    "hits|ids|implementations|indexes|keys|layers|lines|minutes|models|nodes|"
    "objects|pages|pairs|parts|pieces|points|positions|problems|queries|records|"
    "redirects|rejects|requests|rows|runs|sentences|slices|spaces|tables|tasks|"
    "texts|threads|times|tokens|turns|units|values|vectors|versions|words|workers"
)
"""Plurals of what messages count."""
NO_ADJECTIVES = (
    "and|are|as|at|belongs|but|by|changes|for|gives|has|holds|in|is|lacks|no|"
    "not|of|other|runs|takes|than|that|the|to|with"
)
"""Words that no thing is described with: what stands before them is no number of the thing."""
PLURAL = re.compile(rf" ((?!(?:{NO_ADJECTIVES})\b)[a-z]+ )?({THINGS})\b")
LOGGED = re.compile(rf"%[d,]+{PLURAL.pattern}")
A_NAME = re.compile(r"(?:kind|url|model)\b|[A-Z_.a-z]*\b[A-Z][A-Z_]{3,}\b|len\([A-Z_]+\)")
"""A word, or a limit of ours, which is never 1."""


def problems(text: str) -> Iterator[str]:
    """Numbers that stand before a plural as they are."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (match[0] for match in LOGGED.finditer(node.value))
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, after in zip(node.values, node.values[1:], strict=False):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            if (match := PLURAL.match(str(after.value))) and not _is_no_number(value):
                yield f"{{{ast.unparse(value.value)}}}{match[0]}"


def _is_no_number(value: ast.FormattedValue) -> bool:
    """Whether a value is a text, a limit, a share or a measurement."""
    spec = "" if value.format_spec is None else ast.unparse(value.format_spec)
    said = ast.unparse(value.value)
    return bool("%" in spec or ".0f" in spec or "counted(" in said or A_NAME.search(said))


def test_a_number_of_things_in_a_message_is_said_by_counted() -> None:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    wrong = {
        str(path.relative_to(ROOT)): said
        for path in paths
        if (said := list(problems(path.read_text())))
    }
    assert wrong == {}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('f"{n} files are gone"', ["{n} files"]),
        ('f"{len(rows):,} bad rows"', ["{len(rows)} bad rows"]),
        ('log.info("%d units", n)', ["%d units"]),
        ("f\"{counted(n, 'file')} of {MOST_FILES} files, {rate:.0f} tokens a second\"", []),
        ('f"{where} has no rows"', []),
    ],
)
def test_a_plural_after_a_number_is_seen(source: str, said: list[str]) -> None:
    assert list(problems(source)) == said


def test_counted_says_one_and_many() -> None:
    assert [counted(n, "query") for n in (0, 1, 2_000)] == ["0 queries", "1 query", "2,000 queries"]
    assert [counted(n, "index") for n in (1, 2)] == ["1 index", "2 indexes"]
    assert [counted(n, "file is", "files are") for n in (1, 2)] == ["1 file is", "2 files are"]
