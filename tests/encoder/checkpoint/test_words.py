"""Each distinct word is tokenised once; what will hardly come again is not remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers

from embedding_core.encoder.checkpoint.spelling.words import LONGEST_TEXT, Words


class Recording:
    """A tokenizer that lists what it tokenised."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        self._inner = inner
        self.texts: list[str] = []

    def encode(self, *args: Any, **options: Any) -> tokenizers.Encoding:
        return self._inner.encode(*args, **options)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> list[tokenizers.Encoding]:
        self.texts += texts
        return self._inner.encode_batch_fast(texts, **options)


@pytest.fixture
def library(tiny_qwen3: Path) -> Recording:
    return Recording(tokenizers.Tokenizer.from_file(str(tiny_qwen3 / "tokenizer.json")))


def test_ids_are_the_librarys_and_each_word_is_tokenised_once(library: Recording) -> None:
    words = Words(library)
    texts = ["some words of a text", "some other text", "", "  text\n of \n"]
    for _ in range(2):
        whole = [library.encode(text, add_special_tokens=False).ids for text in texts]
        assert [list(ids or ()) for ids in words.ids(texts)] == whole
    later = ["a words", "a of", "a a", "a text", "a other", "a \n"]
    assert sorted(library.texts) == sorted(["some", "  text\n of", *later])


def test_ids_forget_when_there_are_too_many_words(library: Recording) -> None:
    words = Words(library, most_characters=30)
    text = "some words of a text"
    words.ids([text])
    words.ids([text])
    n_first = len(library.texts)
    words.ids(["many more words that came before nobody"])
    words.ids([text])
    assert n_first == 5
    assert library.texts[-5:][0] == "some"


@pytest.mark.parametrize(
    "text", ["中文" * 30, "https://" + "x" * 200, "word " * LONGEST_TEXT], ids=["no", "few", "all"]
)
def test_ids_of_long_words_and_long_texts_are_not_worked_out(library: Recording, text: str) -> None:
    assert Words(library).ids([text]) == [None]
    assert not library.texts
