"""Tell the language of a text, by a library of the extra ``languages``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from embedding_core.errors import SetupError, words

READ_CHARACTERS = 2_000
"""Characters of a text that are looked at."""
UNCERTAIN = "und"
"""BCP 47's word for an undetermined language."""
LEAST_CERTAINTY = 0.5


def language_of(text: str) -> str:
    """The text's language by its code in ISO 639-1, ``und`` where no language is likely.

    Raises ``SetupError`` with the line that installs the library.
    """
    language, certainty = classifier()(text[:READ_CHARACTERS])
    return language if certainty >= LEAST_CERTAINTY else UNCERTAIN


def check_library() -> None:
    """Raise ``SetupError`` when the library is not installed."""
    classifier()


@cache
def classifier() -> Callable[[str], tuple[str, float]]:
    """The library, loaded."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise SetupError(
            f"telling languages needs py3langid ({words(error)}): "
            "pip install 'embedlake[languages]'"
        ) from error
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def classify(text: str) -> tuple[str, float]:
        language, certainty = identifier.classify(text)
        return str(language), float(certainty)

    return classify
