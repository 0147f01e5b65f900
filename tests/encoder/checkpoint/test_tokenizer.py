from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers, trainers

from embedding_core.chunking.tokens.token_map import TokenMap
from embedding_core.encoder.checkpoint import tokenizer as module
from embedding_core.encoder.checkpoint.tokenizer import (
    PIECE_CHARS,
    CheckpointTokenizer,
    checkpoint_tokenizer,
)
from embedding_core.errors import ModelError
from tests.checkpoints import ADDED_TOKENS, CONTROL_TOKENS, END_OF_TEXT, TEXTS, build_qwen3
from tests.models import describe


@pytest.fixture(scope="module")
def tokenizer(tiny_qwen3: Path) -> CheckpointTokenizer:
    return CheckpointTokenizer(tiny_qwen3 / "tokenizer.json", END_OF_TEXT, "")


def _ids(tokenizer: CheckpointTokenizer, text: str, max_tokens: int = 10_000) -> list[int]:
    [(ids, _)] = tokenizer.encode([text], "", max_tokens)
    return ids.tolist()


def test_encode_ordinary_text_same_as_the_plain_library(
    tokenizer: CheckpointTokenizer, tiny_qwen3: Path
) -> None:
    plain = tokenizers.Tokenizer.from_file(str(tiny_qwen3 / "tokenizer.json"))
    for text in [*TEXTS[:10], "", "naïve 中文 🙂"]:
        assert _ids(tokenizer, text) == plain.encode(text).ids


@pytest.mark.parametrize("control", [*CONTROL_TOKENS, *ADDED_TOKENS])
def test_encode_control_token_in_text_is_plain_text(
    tokenizer: CheckpointTokenizer, tiny_qwen3: Path, control: str
) -> None:
    plain = tokenizers.Tokenizer.from_file(str(tiny_qwen3 / "tokenizer.json"))
    control_id = plain.token_to_id(control)
    assert control_id in plain.encode(f"say {control} now").ids[:-1]
    ids = _ids(tokenizer, f"say {control} now")
    assert control_id not in ids[:-1]
    assert plain.decode(ids[:-1], skip_special_tokens=False) == f"say {control} now"


def test_encode_added_word_stays_a_word(tmp_path: Path, tiny_qwen3: Path) -> None:
    plain = tokenizers.Tokenizer.from_file(str(tiny_qwen3 / "tokenizer.json"))
    plain.add_tokens(["interferon"])
    plain.save(str(tmp_path / "tokenizer.json"))
    extended = CheckpointTokenizer(tmp_path / "tokenizer.json", END_OF_TEXT, "")
    assert plain.token_to_id("interferon") in _ids(extended, "of interferon today")


@pytest.mark.parametrize("post_processor", [True, False])
def test_encode_ends_with_end_of_text_exactly_once(tmp_path: Path, post_processor: bool) -> None:
    folder = build_qwen3(tmp_path, post_processor=post_processor)
    tokenizer = checkpoint_tokenizer(describe(str(folder)).checkpoint, "")
    assert tokenizer.n_special == 1
    for text in ("", "words", f"words {END_OF_TEXT}"):
        assert _ids(tokenizer, text).count(0) == 1
        assert _ids(tokenizer, text)[-1] == 0


def test_n_vocabulary_control_token_that_no_text_gives_does_not_count(
    tmp_path: Path, tiny_qwen3: Path
) -> None:
    plain = tokenizers.Tokenizer.from_file(str(tiny_qwen3 / "tokenizer.json"))
    size = CheckpointTokenizer(tiny_qwen3 / "tokenizer.json", END_OF_TEXT, "").n_vocabulary
    plain.add_special_tokens(["<image>"])
    plain.save(str(tmp_path / "tokenizer.json"))
    assert CheckpointTokenizer(tmp_path / "tokenizer.json", END_OF_TEXT, "").n_vocabulary == size
    ended = CheckpointTokenizer(tmp_path / "tokenizer.json", "<image>", "").n_vocabulary
    assert ended == plain.token_to_id("<image>") + 1 > size


def test_encode_too_long_keeps_the_special_token(tokenizer: CheckpointTokenizer) -> None:
    full = _ids(tokenizer, TEXTS[0])
    [(ids, truncated)] = tokenizer.encode([TEXTS[0]], "", 16)
    assert truncated
    assert ids.tolist() == [*full[:15], full[-1]]
    [(_, exact)] = tokenizer.encode([TEXTS[0]], "", len(full))
    assert not exact


@pytest.mark.slow
def test_encode_several_pieces_in_input_order(tokenizer: CheckpointTokenizer) -> None:
    texts = ["a " * (PIECE_CHARS // 3), "b", "c " * (PIECE_CHARS // 2), "d", "", "e"]
    ids = [ids for ids, _ in tokenizer.encode(texts, "", 10**9)]
    assert [len(i) for i in ids] == tokenizer.count(texts)
    assert ids[3].tolist() == _ids(tokenizer, "d")


def test_offsets_characters_beyond_ascii_count_characters(tokenizer: CheckpointTokenizer) -> None:
    text = "é🙂 naïve 中文"
    [offsets] = tokenizer.offsets([text])
    assert offsets.max() == len(text)
    assert (np.diff(offsets[:, 0]) >= 0).all()


def test_count_document_prompt_is_included(tiny_qwen3: Path) -> None:
    prompted = CheckpointTokenizer(tiny_qwen3 / "tokenizer.json", END_OF_TEXT, "passage: ")
    [(ids, _)] = prompted.encode(["words"], "passage: ", 100)
    assert prompted.count(["words"]) == [len(ids)]
    assert len(ids) > 3


@pytest.mark.parametrize("prompt", ["passage: ", "Represent", "s", "query:\n", "  "])
@pytest.mark.parametrize("kind", ["bytes", "wordpiece"])
def test_count_with_a_prompt_is_what_the_model_sees(
    tiny_qwen3: Path, minilm: str, kind: str, prompt: str
) -> None:
    resolved = describe(str(tiny_qwen3 if kind == "bytes" else minilm))
    prompted = resolved.tokenizer_for(prompt)
    assert isinstance(prompted, CheckpointTokenizer)
    texts = ["ed words", "s", "the same", "", " spaced", ".", "étude"]
    seen = [len(ids) for ids, _ in prompted.encode(texts, prompt, 1_000)]
    assert prompted.count(texts) == seen
    assert prompted.merges_at_start


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("plain words", 0.0), ("สวัสดีครับ", 1.0), ("ok ᚠᚢᚦ", 0.6), ("x" * 1_000_000, 1.0),
        ("see " + "x" * 200, 200 / 203), ("", 0.0), ("naïve café", 0.0), ("!?", 0.0),
    ],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_unknown_shares_are_of_the_characters(minilm: str, text: str, share: float) -> None:
    tokenizer = describe(minilm).tokenizer
    assert tokenizer.unknown_shares(["known", text, "known"]) == [0.0, pytest.approx(share), 0.0]


def test_unknown_shares_bytes_spell_everything(tokenizer: CheckpointTokenizer) -> None:
    assert tokenizer.unknown_shares(["สวัสดีครับ ᚠᚢᚦ 🙂", "x" * 1_000]) == [0.0, 0.0]


def test_encode_lone_surrogate_value_error_names_the_text(tokenizer: CheckpointTokenizer) -> None:
    with pytest.raises(ValueError, match=r"text 2 is not valid Unicode"):
        list(tokenizer.encode(["fine", "fine", "\ud800"], "", 100))


def test_read_damaged_file_model_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ModelError, match="download it again"):
        CheckpointTokenizer(tmp_path / "tokenizer.json", None, "")


def test_read_without_the_trailing_token_model_error(tiny_qwen3: Path) -> None:
    with pytest.raises(ModelError, match="no token '<eos>'"):
        CheckpointTokenizer(tiny_qwen3 / "tokenizer.json", "<eos>", "")


# Cutting a long text before it is tokenised must not change a single id.


def _sentencepiece_like(path: Path) -> Path:
    """BPE over the whole text at once, spaces as ▁, as Gemma's and Llama's tokenizers do it."""
    inner = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    words = [text.replace(" ", " ▁") for text in TEXTS[:10]]
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"], show_progress=False)
    inner.train_from_iterator(words, trainer)
    inner.pre_tokenizer = None
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    inner.save(str(path))
    return path


@pytest.fixture(scope="module")
def cutters(
    tiny_qwen3: Path, minilm: str, tmp_path_factory: pytest.TempPathFactory
) -> list[CheckpointTokenizer]:
    path = _sentencepiece_like(tmp_path_factory.mktemp("spm") / "tokenizer.json")
    return [
        CheckpointTokenizer(tiny_qwen3 / "tokenizer.json", END_OF_TEXT, ""),
        checkpoint_tokenizer(describe(minilm).checkpoint, ""),
        CheckpointTokenizer(path, None, ""),
    ]


PARTS = st.sampled_from(
    [
        " ",
        " ",
        "  ",
        "\n",
        "\t",
        "\u00a0",
        "\u3000",
        "a",
        "word",
        "Ünï",
        "e\u0301",
        "\u0301",
        ".",
        "...",
        "\n\n",
        "7",
        "中文",
        "。",
        "，",
        "字！？",
        "ア、",
        "が",
        "か\u3099。",
        "🙂",
        "don't",
        "<|im_start|>",
        "<think>",
        "▁",
        "Ġ",
        "ﬁ",
        "Σ",
        "(",
        "::",
    ]
)


@pytest.mark.slow
@given(parts=st.lists(PARTS, max_size=60), max_tokens=st.integers(4, 30), data=st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_encode_any_text_head_gives_the_ids_of_the_whole(
    cutters: list[CheckpointTokenizer], parts: list[str], max_tokens: int, data: st.DataObject
) -> None:
    text = "".join(parts) * 3
    tokenizer = data.draw(st.sampled_from(cutters))
    prompt = data.draw(st.sampled_from(["", "query: "]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_CHARS", 3)
        patch.setattr(module, "CHARS_PER_TOKEN", 1)
        [(cut, cut_flag)] = tokenizer.encode([text], prompt, max_tokens)
        patch.setattr(module, "FIRST_CHARS", 10**9)
        [(whole, whole_flag)] = tokenizer.encode([text], prompt, max_tokens)
    assert cut.tolist() == whole.tolist()
    assert cut_flag == whole_flag


ENGLISH_BOOK = "\n".join(TEXTS) * 3
CHINESE_BOOK = "他说的话很长，但是没有空格。" * 30_000


def n_chars_read(tokenizer: CheckpointTokenizer, text: str, max_tokens: int) -> int:
    """How many characters are tokenised to encode a text that is too long."""
    n_chars: list[int] = []
    real = tokenizer.encodings

    def encodings(texts: list[str]) -> Any:
        n_chars.extend(map(len, texts))
        return real(texts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "encodings", encodings)
        [(ids, truncated)] = tokenizer.encode([text], "", max_tokens)
    assert truncated and len(ids) == max_tokens
    return sum(n_chars)


def test_encode_book_only_its_head_is_tokenised(cutters: list[CheckpointTokenizer]) -> None:
    assert all(n_chars_read(tokenizer, ENGLISH_BOOK, 512) < 20_000 for tokenizer in cutters)
    _qwen, bert, _sentencepiece = cutters
    assert n_chars_read(bert, CHINESE_BOOK, 512) < 20_000 < len(CHINESE_BOOK)


def test_encode_vocabulary_with_spaces_inside_tokens_takes_the_whole(tmp_path: Path) -> None:
    inner = tokenizers.Tokenizer(
        models.BPE(
            vocab={c: i for i, c in enumerate("ab ")} | {"a ": 3, "a b": 4},
            merges=[("a", " "), ("a ", "b")],
        )
    )
    inner.save(str(tmp_path / "tokenizer.json"))
    tokenizer = CheckpointTokenizer(tmp_path / "tokenizer.json", None, "")
    book = "a b" * 10_000
    [(ids, _)] = tokenizer.encode([book], "", 5)
    assert ids.tolist() == [4] * 5
    assert n_chars_read(tokenizer, book, 5) == len(book)


def test_encode_bad_unicode_after_the_head_still_named(tokenizer: CheckpointTokenizer) -> None:
    with pytest.raises(ValueError, match="text 1 is not valid Unicode"):
        tokenizer.encode(["fine", "words " * 10_000 + "\ud800"], "", 20)


# At a seam the tokens before it do not depend on the text after it, nor the other way round.


def _unigram(path: Path) -> Path:
    """SentencePiece's kind with words by ▁, as XLM-R and T5 have it."""
    inner = tokenizers.Tokenizer(models.Unigram())
    inner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    inner.train_from_iterator(TEXTS[:10], trainer)
    inner.save(str(path))
    return path


def _roberta_like(path: Path, tiny_qwen3: Path) -> Path:
    inner = tokenizers.Tokenizer.from_file(str(tiny_qwen3 / "tokenizer.json"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.normalizer = None
    inner.save(str(path))
    return path


@pytest.fixture(scope="module")
def seamed(
    cutters: list[CheckpointTokenizer], tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[CheckpointTokenizer]:
    paths = [
        _unigram(tmp_path_factory.mktemp("unigram") / "tokenizer.json"),
        _roberta_like(tmp_path_factory.mktemp("roberta") / "tokenizer.json", tiny_qwen3),
    ]
    return [
        *cutters[:2],
        *(CheckpointTokenizer(path, None, "") for path in paths),
        CheckpointTokenizer(paths[1], None, "query: "),
    ]


@pytest.mark.slow
@given(parts=st.lists(PARTS, max_size=60), data=st.data())
@settings(max_examples=1_000)
def test_seams_parts_put_together_have_the_tokens_of_the_whole(
    seamed: list[CheckpointTokenizer], parts: list[str], data: st.DataObject
) -> None:
    text, tokenizer = "".join(parts), data.draw(st.sampled_from(seamed))
    kind = data.draw(st.sampled_from(tokenizer.seams))
    seams = [match.end() for match in kind.finditer(text)]
    if not seams:
        return
    first, last = sorted(data.draw(st.tuples(st.sampled_from(seams), st.sampled_from(seams))))
    n_between = TokenMap.of(text, tokenizer).between(first, last)
    if n_between is not None:
        whole, edges = tokenizer.count([text, text[:first] + text[last:]])
        assert whole == edges + n_between


def test_seams_of_every_kind_of_tokenizer(
    seamed: list[CheckpointTokenizer], cutters: list[CheckpointTokenizer]
) -> None:
    assert [len(tokenizer.seams) for tokenizer in seamed] == [2, 2, 1, 2, 2]
    assert cutters[2].seams == ()  # no words: merges over the whole text


def test_seams_added_token_that_takes_the_space_after_it_has_none_at_spaces(
    tmp_path: Path, tiny_qwen3: Path
) -> None:
    plain = tokenizers.Tokenizer.from_file(str(tiny_qwen3 / "tokenizer.json"))
    plain.add_tokens([tokenizers.AddedToken("interferon", rstrip=True)])
    plain.save(str(tmp_path / "tokenizer.json"))
    taking = CheckpointTokenizer(tmp_path / "tokenizer.json", END_OF_TEXT, "")
    assert not any(kind.search("interferon is") for kind in taking.seams)


@pytest.mark.slow
@given(texts=st.lists(st.lists(PARTS, max_size=30).map("".join), max_size=4), data=st.data())
@settings(max_examples=1_000)
def test_count_of_texts_whose_words_were_met_is_the_librarys(
    seamed: list[CheckpointTokenizer], texts: list[str], data: st.DataObject
) -> None:
    tokenizer = data.draw(st.sampled_from(seamed))
    prompt = "query: " if tokenizer is seamed[-1] else ""
    n_around = tokenizer.count([""])[0] - len(next(tokenizer.encodings([prompt])))
    content = tokenizer.encodings([prompt + text for text in texts])
    expected = [n_around + len(encoding) for encoding in content]
    assert tokenizer.count(texts) == tokenizer.count(texts) == expected


@pytest.mark.parametrize("bad", ["words and \ud800 words", "中文" * 30 + "\ud800"])
def test_count_bad_unicode_is_named(tokenizer: CheckpointTokenizer, bad: str) -> None:
    with pytest.raises(ValueError, match="text 2 is not valid Unicode"):
        tokenizer.count(["fine words", "x" * module.PIECE_CHARS, bad])
