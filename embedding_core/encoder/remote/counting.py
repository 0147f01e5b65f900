"""How tokens are counted for a server's model, and texts cut to what it takes.

A checkpoint that is at hand counts exactly, since its tokenizer is the model's. Without one, a
cautious counter takes more tokens for a text than almost any model does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedding_core.encoder.base import InvalidText
from embedding_core.encoder.checkpoint.locate import locate, locate_kept
from embedding_core.encoder.checkpoint.tokenizer import checkpoint_tokenizer, tokenizer_digest
from embedding_core.encoder.checkpoint.tokenizing import TokenizerFolder, read_tokenizer_folder
from embedding_core.encoder.stream import refuse_bare_string
from embedding_core.errors import ModelError
from embedding_core.protocols import Offsets, Tokenizer
from embedding_core.recipe import ModelSpec

CAUTIOUS = "cautious"
"""``model.tokenizer`` of models whose tokenizer nobody has."""
CAUTIOUS_MAX_TOKENS = 512
"""Longest input where neither the recipe nor the server says it: what most models take."""
_CAUTIOUS_TOKEN = re.compile(r"[A-Za-z]{1,3}|\S")
"""Three letters, or any other character. Tokenizers take four to five English letters together; a
rare character may be three tokens, and then stands among many that are less."""
_CAUTIOUS_SPECIAL = 2


class CautiousTokenizer:
    """Counts more tokens than a model is likely to."""

    merges_at_start = False
    seams = (re.compile(r"\S(?= )"),)

    def __init__(self, document_prompt: str) -> None:
        self.n_special = _CAUTIOUS_SPECIAL + _n_cautious(document_prompt)

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """See ``Tokenizer``."""
        refuse_bare_string(texts)
        spans = ([match.span() for match in _CAUTIOUS_TOKEN.finditer(text)] for text in texts)
        return [np.array(of_text, dtype=np.int64).reshape(-1, 2) for of_text in spans]

    def count(self, texts: Sequence[str]) -> list[int]:
        """See ``Tokenizer``."""
        refuse_bare_string(texts)
        return [_n_cautious(text) + self.n_special for text in texts]

    def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        """Zeros: nobody knows the model's words."""
        return [0.0] * len(texts)


def _n_cautious(text: str) -> int:
    return sum(1 for _ in _CAUTIOUS_TOKEN.finditer(text))


@dataclass(frozen=True, slots=True)
class Counter:
    """What counts for a model; pickles small."""

    checkpoint: TokenizerFolder | None
    """None counts cautiously."""

    @property
    def digest(self) -> str:
        """Digest of the tokenizer, as in a space."""
        if self.checkpoint is None:
            return hashlib.sha256(_CAUTIOUS_TOKEN.pattern.encode()).hexdigest()
        return tokenizer_digest(self.checkpoint)

    @property
    def max_tokens(self) -> int:
        """Longest input that the checkpoint sets."""
        return CAUTIOUS_MAX_TOKENS if self.checkpoint is None else self.checkpoint.max_tokens

    @property
    def prompts(self) -> tuple[str, str]:
        """The checkpoint's prompts of queries and of documents."""
        if self.checkpoint is None:
            return "", ""
        return self.checkpoint.query_prompt, self.checkpoint.document_prompt

    def tokenizer_for(self, prompt: str) -> Tokenizer:
        """The tokenizer, counting texts with a prompt before them."""
        if self.checkpoint is None:
            return CautiousTokenizer(prompt)
        return checkpoint_tokenizer(self.checkpoint, prompt)


def counter_of(model: ModelSpec, served: str | None = None) -> Counter:
    """The counter of a model section, else that of the server's id of the model, where it names a
    folder or a checkpoint that the hub's cache has. Raises ``ModelError`` when neither does."""
    if model.tokenizer == CAUTIOUS:
        return Counter(None)
    if model.tokenizer is not None:
        folder = locate(model.tokenizer, None, model.storage, with_weights=False).directory
        return Counter(read_tokenizer_folder(folder))
    kept = None if served is None else locate_kept(served)
    if kept is None:
        raise ModelError(
            f"nothing here counts the tokens of {served!r}, which {model.name} serves; name a "
            "checkpoint with its tokenizer in model.tokenizer (a hub id, ./folder, "
            f"package:<python package>), or write model.tokenizer: {CAUTIOUS} for shorter chunks "
            "that are counted without it"
        )
    return Counter(read_tokenizer_folder(kept))


def fitted(
    tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int
) -> tuple[list[str], list[int]]:
    """Texts, cut at the end of a token to at most ``max_tokens``, and the tokens that each had.

    ``tokenizer`` counts the prompt, which is not in the texts. Raises ``InvalidText`` for a text
    that is no string or no valid Unicode.
    """
    for index, text in enumerate(texts):
        _check(index, text)
    counts = tokenizer.count(texts)
    pairs = zip(texts, counts, strict=True)
    kept = [text if n <= max_tokens else _cut(tokenizer, text, max_tokens) for text, n in pairs]
    return kept, counts


def _cut(tokenizer: Tokenizer, text: str, max_tokens: int) -> str:
    """The longest beginning that fits: what is left may have another token at its end."""
    (offsets,) = tokenizer.offsets([text])
    n_kept = max(0, max_tokens - tokenizer.n_special)
    while True:
        cut = text[: int(offsets[n_kept - 1][1])] if n_kept else ""
        if not n_kept or tokenizer.count([cut])[0] <= max_tokens:
            return cut
        n_kept -= 1


def _check(index: int, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidText(index, f"is a {type(text).__name__}; pass strings")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        why = f"is not valid Unicode ({error.reason}); repair or leave it out"
        raise InvalidText(index, why) from error
