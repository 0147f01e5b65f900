"""What is known of single characters gives what tokenising the text gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedding_core.encoder.checkpoint.spelling.characters import Characters
from embedding_core.encoder.checkpoint.tokenizer import CheckpointTokenizer
from tests.models import describe

PLAIN = "word ,.!?\n\r\t\"'[]#é中字。ÀıſßßŒœ’“”…—\xa0\u2003\u3000ΑςЖй½°€あ"
ODD = PLAIN + "\u0301\u3099\x00\x1c\x85\xad\u200d\ufeffİﬁⅷﾞ가👩🏽\U0010ffff"
TEXTS = st.one_of(
    st.text(st.sampled_from(PLAIN), max_size=80),
    st.text(st.sampled_from(ODD), max_size=80),
    st.text(max_size=80),
    st.lists(st.sampled_from(["[UNK]", "##ing", "x" * 120, "naïve", " ", "it’s"])).map("".join),
)


@pytest.fixture(scope="module")
def wordpiece(minilm: str) -> Path:
    return Path(describe(minilm).checkpoint.tokenizer_file)


@pytest.fixture(scope="module")
def ours(wordpiece: Path) -> CheckpointTokenizer:
    return CheckpointTokenizer(wordpiece, None, "")


@pytest.fixture(scope="module")
def library(wordpiece: Path) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer.from_file(str(wordpiece))
    inner.no_truncation()
    inner.no_padding()
    inner.encode_special_tokens = True
    return inner


@pytest.fixture(scope="module")
def characters(library: tokenizers.Tokenizer) -> Characters:
    return Characters(library)


@pytest.mark.slow
@settings(max_examples=300)
@example(text="")
@example(text=" \n")
@given(text=TEXTS)
def test_offsets_of_any_text_are_the_librarys(
    ours: CheckpointTokenizer, library: tokenizers.Tokenizer, text: str
) -> None:
    (offsets,) = ours.offsets([text])
    encoding = library.encode(text, add_special_tokens=False)
    assert [tuple(pair) for pair in offsets] == encoding.offsets


@pytest.mark.slow
@settings(max_examples=300)
@given(text=TEXTS)
def test_text_that_cannot_be_unknown_has_no_unknown_token(
    characters: Characters, library: tokenizers.Tokenizer, text: str
) -> None:
    if not characters.may_be_unknown(text):
        assert "[UNK]" not in library.encode(text, add_special_tokens=False).tokens


def test_typeset_english_needs_neither_offsets_nor_a_search_for_unknown_words(
    wordpiece: Path, library: tokenizers.Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "“It’s naïve,” she said — twice… £5, 20 °C\n\nand\tnothing more."
    tokenizer, asked = CheckpointTokenizer(wordpiece, None, ""), list[str]()
    monkeypatch.setattr(tokenizer, "encodings", lambda texts, **_: asked.extend(texts) or [])
    (offsets,) = tokenizer.offsets([text])
    assert [tuple(pair) for pair in offsets] == library.encode(
        text, add_special_tokens=False
    ).offsets
    assert tokenizer.unknown_shares([text]) == [0.0]
    assert asked == []


@pytest.mark.parametrize(
    ("text", "may_be"),
    [
        ("plain", False), ("x" * 89 + " y", False), ("x" * 90, True), ("a " * 80 + "x" * 95, True),
        ("\n".join(["word"] * 80), False), ("ᚠ", True), ("e\u0301", True), ("가\u11a8", True),
    ],
)  # fmt: skip
def test_may_be_unknown_long_words_strange_and_joining_characters(
    library: tokenizers.Tokenizer, text: str, may_be: bool
) -> None:
    characters = Characters(library)
    assert characters.may_be_unknown(text) == may_be
    assert characters.may_be_unknown(text) == may_be


def test_offsets_follow_the_library_where_tokens_do_not_say_what_they_cover(
    library: tokenizers.Tokenizer, tiny_qwen3: Path
) -> None:
    wordy = Characters(library)
    long, joining = ("x" * 120, "e\u0301")
    assert wordy.offsets(long, _ids(library, long)) is None  # one unknown token
    assert not wordy.are_plain(joining)
    of_bytes = Characters(tokenizers.Tokenizer.from_file(str(tiny_qwen3 / "tokenizer.json")))
    assert not of_bytes.are_plain("plain words")
    assert wordy.are_plain("plain words")
    plain = wordy.offsets("plain words", _ids(library, "plain words"))
    assert plain is not None and plain.tolist() == [[0, 5], [6, 11]]


def _ids(library: tokenizers.Tokenizer, text: str) -> list[int]:
    return library.encode(text, add_special_tokens=False).ids
