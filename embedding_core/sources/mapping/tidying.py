"""Normal forms and white space of a text, before it is cut: offsets count in what comes out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from embedding_core.recipe.spec import Normalization, Whitespace

_BLANK = re.compile(r"\s+")


def tidier(normalization: Normalization, whitespace: Whitespace) -> Callable[[str], str] | None:
    """The function that tidies a text up; None for one that is to stay exactly as it is."""
    steps: list[Callable[[str], str]] = []
    if normalization == "nfc":
        steps.append(lambda text: unicodedata.normalize("NFC", text))
    elif normalization == "nfkc":
        steps.append(lambda text: unicodedata.normalize("NFKC", text))
    if whitespace == "trim":
        steps.append(str.strip)
    elif whitespace == "collapse":
        steps.append(collapsed)
    if not steps:
        return None

    def tidied(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return tidied


def collapsed(text: str) -> str:
    """The text with each run of white space as short as can be, and without any at its ends.

    A run stays a blank line if it has two line ends or more, a line end if it has one, and is a
    space otherwise: chunks are cut at paragraphs and lines.
    """
    return _BLANK.sub(_shortest, text.strip())


def _shortest(blank: re.Match[str]) -> str:
    n_line_ends = len((blank[0] + "|").splitlines()) - 1
    return "\n\n" if n_line_ends > 1 else "\n" if n_line_ends else " "
