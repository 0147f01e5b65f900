"""A checkpoint's own tokenizer, as transformers reads it, made safe for any document.

A control token written in a document (``<|im_start|>``) is text, not control: it tokenises as the
characters it is made of. Prompts are ours and go through together with the text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import tokenizers

from embedding_core.encoder.base import InvalidText
from embedding_core.encoder.checkpoint.backend import (
    AS_IT_IS,
    Reading,
    backend_digest,
    backend_json,
)
from embedding_core.encoder.checkpoint.describe import Checkpoint
from embedding_core.encoder.checkpoint.spelling.characters import Characters
from embedding_core.encoder.checkpoint.spelling.words import Words
from embedding_core.encoder.checkpoint.tokenizing import TokenizerFolder
from embedding_core.encoder.stream import Ids, refuse_bare_string
from embedding_core.errors import ModelError
from embedding_core.protocols import Offsets

PIECE_CHARS = 1_000_000
"""Characters tokenised at a time: an encoding takes about 100 bytes a token while it lives."""

FIRST_CHARS = 2_000
CHARS_PER_TOKEN = 6
"""How much of a long text is tokenised first: English has 4 to 5 characters a token."""

_SPACE_AFTER_WORD = re.compile(r"\S(?= )")
_SPANS_SPACE = re.compile("(?:[^\\s▁ĠĊĉčċČł]|(?<!Â)ł)[ ▁Ġ]")
"""A space after anything but white space within a token, in the spellings of all kinds:
plain, ▁ (SentencePiece), and byte-level, where Ġ Ċ ĉ č ċ Č and Âł (no-break) are white space."""

_STOP_AFTER_LETTER = re.compile(r"[^\W\d_](?=[。，、；：！？])")
_STOPS = "。，、；：！？"
"""Full-width marks: Chinese and Japanese, written without spaces, can be cut before them."""

_BEFORE_SPACES = "a1.,'\"-字é\u0301"
"""Characters of every kind that tokenizers tell apart."""

_MARKUP = re.compile(r"\s*[<\[{].*[>\]}]\s*", re.DOTALL)
"""Added tokens that look like this are control tokens even if the file does not call them special
(``<think>``); other added tokens are ordinary words of the model's vocabulary."""


def checkpoint_tokenizer(
    checkpoint: Checkpoint | TokenizerFolder, document_prompt: str
) -> CheckpointTokenizer:
    """The checkpoint's tokenizer, one object per process, file version and prompt."""
    path, reading = checkpoint.tokenizer_file, checkpoint.reading
    digest = backend_digest(path, reading)
    return _tokenizer(path, reading, digest, checkpoint.trailing_token, document_prompt)


def tokenizer_digest(checkpoint: Checkpoint | TokenizerFolder) -> str:
    """Digest of the tokenizer that the files make, and of the end token if embedlake adds it."""
    digest = backend_digest(checkpoint.tokenizer_file, checkpoint.reading)
    if checkpoint.added_end is None or checkpoint.trailing_token != checkpoint.added_end:
        return digest
    return hashlib.sha256(f"{digest} {checkpoint.added_end}".encode()).hexdigest()


@lru_cache(maxsize=8)
def _tokenizer(
    path: Path, reading: Reading, digest: str, trailing: str | None, document_prompt: str
) -> CheckpointTokenizer:
    """``digest``, the ``backend_digest``, makes a changed file a new entry of the cache."""
    return CheckpointTokenizer(path, trailing, document_prompt, reading)


class CheckpointTokenizer:
    """Texts to token ids and offsets. ``trailing`` is a token every text must end with once.

    ``reading`` is how ``path``, a tokenizer.json, is read.
    """

    def __init__(
        self,
        path: Path,
        trailing: str | None,
        document_prompt: str,
        reading: Reading = AS_IT_IS,
    ) -> None:
        self._inner = _read(path, reading)
        self._prefix, self._suffix = _special_ids(self._inner)  # put around every text
        if trailing is not None:
            self._suffix = _ending_with(self._inner, self._suffix, trailing, path)
        self._document_prompt = document_prompt
        prompt_tokens = len(self._inner.encode(document_prompt, add_special_tokens=False).ids)
        self.n_special = len(self._prefix) + len(self._suffix) + prompt_tokens
        self.merges_at_start = bool(document_prompt)

    @property
    def n_vocabulary(self) -> int:
        """One more than the largest token id the tokenizer can produce.

        Control tokens count only where they are put around a text: Gemma 3's tokenizer has one
        for images, beyond the vocabulary of the models without images.
        """
        added = self._inner.get_added_tokens_decoder()
        control = {token.content for token in added.values() if token.special}
        vocabulary = self._inner.get_vocab(with_added_tokens=True).items()
        content = (number for token, number in vocabulary if token not in control)
        return 1 + max((*content, *self._prefix, *self._suffix), default=-1)

    def control_token(self, text: str) -> str | None:
        """The first control token that is written in this text, if any."""
        added = self._inner.get_added_tokens_decoder().values()
        control = (token.content for token in added if token.special or _is_markup(token))
        return next((token for token in control if token in text), None)

    def offsets(self, texts: Sequence[str]) -> list[Offsets]:
        """Per text an (n_tokens, 2) array: content tokens' start and end in characters."""
        refuse_bare_string(texts)
        return [self._offsets(text) for text in texts]

    def _offsets(self, text: str) -> Offsets:
        if self._characters.are_plain(text):
            ids = next(self._content_ids([text]), ())
            offsets = self._characters.offsets(text, ids)
            if offsets is not None:
                return offsets
        (encoding,) = self.encodings([text], keep_offsets=True)
        return np.fromiter(chain.from_iterable(encoding.offsets), np.int64).reshape(-1, 2)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a document, ``n_special`` included, nothing cut off.

        Prompt and text are tokenised together: the last word of the one may merge with the first
        of the other.
        """
        refuse_bare_string(texts)
        _refuse_other_types(texts)
        prompted = [self._document_prompt + text for text in texts]
        n_around = len(self._prefix) + len(self._suffix)
        return [len(ids) + n_around for ids in self._content_ids(prompted)]

    def _content_ids(self, texts: Sequence[str]) -> Iterator[Sequence[int]]:
        """Token ids of each text as it is, most of them without tokenising it (see ``Words``)."""
        for start, end in _pieces(texts):
            piece = texts[start:end]
            try:
                by_words = self._words.ids(piece) if self._words else [None] * len(piece)
                unknown = [text for text, ids in zip(piece, by_words, strict=True) if ids is None]
                tokenised = (encoding.ids for encoding in self.encodings(unknown))
                yield from [next(tokenised) if ids is None else ids for ids in by_words]
            except (TypeError, InvalidText):
                _refuse_bad_unicode(piece, start)
                raise

    @cached_property
    def _words(self) -> Words | None:
        return Words(self._inner) if _SPACE_AFTER_WORD in self.seams else None

    def unknown_shares(self, texts: Sequence[str]) -> list[float]:
        """Per text the share of its characters, white space left out, that lie in unknown tokens.

        Texts that this vocabulary is certain to spell are not tokenised.
        """
        may_be_unknown = self._characters.may_be_unknown
        doubtful = [index for index, text in enumerate(texts) if may_be_unknown(text)]
        encodings = self.encodings([texts[index] for index in doubtful], keep_offsets=True)
        shares = [0.0] * len(texts)
        for index, encoding in zip(doubtful, encodings, strict=True):
            shares[index] = _unknown_share(texts[index], encoding, self._characters.unknown_id)
        return shares

    @cached_property
    def _characters(self) -> Characters:
        return Characters(self._inner)

    def encode(self, texts: Sequence[str], prompt: str, max_tokens: int) -> list[EncodedIds]:
        """Token ids of ``prompt + text``, special tokens around them, at most ``max_tokens``.

        What is too long loses the end of its text, never a special token. In input order. Of a
        long text only as much is tokenised as it takes (see ``_head``).
        """
        room = max_tokens - len(self._prefix) - len(self._suffix)
        _refuse_other_types(texts)
        prompted = texts if not prompt else [prompt + text for text in texts]
        done: dict[int, EncodedIds] = {}
        todo, n_chars = list(range(len(texts))), max(FIRST_CHARS, room * CHARS_PER_TOKEN)
        while todo:
            heads = [self._head(prompted[index], n_chars, index) for index in todo]
            for index, head, encoding in zip(todo, heads, self.encodings(heads), strict=True):
                content = encoding.ids
                if len(content) > room or len(head) == len(prompted[index]):
                    kept = [*self._prefix, *content[:room], *self._suffix]
                    done[index] = np.array(kept, dtype=np.int32), len(content) > room
            todo, n_chars = [index for index in todo if index not in done], n_chars * 4
        return [done[index] for index in range(len(texts))]

    def _head(self, text: str, n_chars: int, index: int) -> str:
        """About the first ``n_chars``, cut where the tokens before the cut cannot change.

        A text without such a position, or with a tokenizer that has none, is taken whole.
        """
        # 1. A text may be cut before a space that follows anything but white space, if no token of
        #    the vocabulary spans such a space: merges, words and normalisation end there, too.
        patterns = [_SPACE_AFTER_WORD] * self._tokens_end_at_spaces
        # 2. It may be cut between a letter and a full-width mark, if the tokenizer splits words
        #    there: Chinese and Japanese have no spaces.
        patterns += [_STOP_AFTER_LETTER] * self._words_end_at_stops
        if len(text) <= n_chars or not patterns:
            return text
        # 3. What is cut off must be valid text all the same: no reader would report it later.
        if not text.isascii():
            _check_unicode(text, index)
        # 4. Cut at the first such position after ``n_chars``.
        matches = (pattern.search(text, n_chars) for pattern in patterns)
        return text[: min((match.end() for match in matches if match), default=len(text))]

    @cached_property
    def seams(self) -> tuple[re.Pattern[str], ...]:
        """See ``Tokenizer``: before spaces and full-width marks, where words end there."""
        added = self._inner.get_added_tokens_decoder().values()
        # An added token may take in the spaces after it; control tokens are never found in a text.
        ends_at_spaces = not any(token.rstrip and not token.special for token in added)
        ends_at_spaces &= self._tokens_end_at_spaces and self._words_end_at_spaces
        kinds = {_SPACE_AFTER_WORD: ends_at_spaces, _STOP_AFTER_LETTER: self._words_end_at_stops}
        return tuple(kind for kind, ends_there in kinds.items() if ends_there)

    @cached_property
    def _words_end_at_spaces(self) -> bool:
        """Whether what stands before a space and the space are never in one word."""
        splitter = self._inner.pre_tokenizer
        if splitter is None:
            return False
        words = (splitter.pre_tokenize_str(f"{char} {char}") for char in _BEFORE_SPACES)
        return not any(start < 1 < end for spans in words for _, (start, end) in spans)

    @cached_property
    def _tokens_end_at_spaces(self) -> bool:
        """Whether no token has a space after anything but white space; reads them all."""
        return not any(map(_SPANS_SPACE.search, self._inner.get_vocab(with_added_tokens=True)))

    @cached_property
    def _words_end_at_stops(self) -> bool:
        """Whether a letter and each full-width mark after it are separate words."""
        splitter = self._inner.pre_tokenizer
        if splitter is None:
            return False
        pairs = (splitter.pre_tokenize_str(f"字字{stop}字") for stop in _STOPS)
        return all(any(start == 2 for _, (start, _) in words) for words in pairs)

    def encodings(
        self, texts: Sequence[str], keep_offsets: bool = False
    ) -> Iterator[tokenizers.Encoding]:
        """Tokens of each text as they are, without prompt, special tokens or limit.

        Offsets are right with ``keep_offsets`` alone, which takes longer.
        """
        refuse_bare_string(texts)
        encode = self._inner.encode_batch if keep_offsets else self._inner.encode_batch_fast
        for start, end in _pieces(texts):
            piece = list(texts[start:end])
            try:
                yield from encode(piece, add_special_tokens=False)
            except TypeError as error:
                _refuse_bad_unicode(piece, start)
                raise ValueError(f"the tokenizer refused a text ({error})") from error


def _unknown_share(text: str, encoding: tokenizers.Encoding, unknown_id: int | None) -> float:
    visible = len(text) - sum(map(str.isspace, text))
    pairs = zip(encoding.ids, encoding.offsets, strict=True)
    unknown = sum(
        end - start - sum(map(str.isspace, text[start:end]))
        for token_id, (start, end) in pairs
        if token_id == unknown_id
    )
    return unknown / visible if visible else 0.0


EncodedIds = tuple[Ids, bool]
"""Token ids (n_tokens,) int32, and whether the text was cut."""


def _pieces(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    start = n_chars = 0
    for end, text in enumerate(texts, start=1):
        n_chars += len(text)
        if n_chars >= PIECE_CHARS:
            yield start, end
            start, n_chars = end, 0
    if start < len(texts):
        yield start, len(texts)


def _refuse_other_types(texts: Sequence[object]) -> None:
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidText(index, f"is a {type(text).__name__}; pass strings")


def _refuse_bad_unicode(texts: Sequence[str], start: int) -> None:
    for index, text in enumerate(texts, start):
        _check_unicode(text, index)


def _check_unicode(text: str, index: int) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        why = f"is not valid Unicode ({error.reason}); repair or leave it out"
        raise InvalidText(index, why) from error


def _read(path: Path, reading: Reading) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer.from_str(backend_json(path, reading))
    control = [t for t in inner.get_added_tokens_decoder().values() if _is_markup(t)]
    inner.add_special_tokens(control)  # they are in the vocabulary and keep their numbers
    inner.encode_special_tokens = True
    return inner


def _is_markup(token: tokenizers.AddedToken) -> bool:
    return not token.special and bool(_MARKUP.fullmatch(token.content))


def _special_ids(inner: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """Ids that the post-processor puts before and after a text."""
    with_special = inner.encode("a")
    is_special = with_special.special_tokens_mask
    content = [index for index, special in enumerate(is_special) if not special]
    if not content:
        return [], list(with_special.ids)
    return with_special.ids[: content[0]], with_special.ids[content[-1] + 1 :]


def _ending_with(
    inner: tokenizers.Tokenizer, suffix: list[int], trailing: str, path: Path
) -> list[int]:
    """``suffix`` with ``trailing`` at its end exactly once."""
    token_id = inner.token_to_id(trailing)
    if token_id is None:
        raise ModelError(
            f"{path} has no token {trailing!r}, which this model pools at the end of every text; "
            "use the tokenizer the model was published with"
        )
    while suffix and suffix[-1] == token_id:
        suffix = suffix[:-1]
    return [*suffix, token_id]
