"""A checkpoint's tokenizer as transformers builds it: the one that sentence-transformers uses.

tokenizer.json is not all of it. transformers picks a class and lets it apply what
tokenizer_config.json says: lower case, accents, Chinese characters, the space before a text,
special tokens. Here that class does it, once per machine; what it gives is kept as JSON, so that
most processes need neither transformers nor torch for their tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import normalizers

from embedding_core.encoder.checkpoint.cache import file_version, kept_text
from embedding_core.encoder.checkpoint.families import FAMILIES, FILE_AS_IT_IS
from embedding_core.errors import ModelError

CLASSES = (
    "BertTokenizer",
    "DistilBertTokenizer",
    "GemmaTokenizer",
    "LlamaTokenizer",
    "MPNetTokenizer",
    "Qwen2Tokenizer",
    "RobertaTokenizer",
    "XLMRobertaTokenizer",
)
"""Classes that build the tokenizer from tokenizer.json's vocabulary and the settings."""

_NO_CLASS = ("PreTrainedTokenizer", "PythonBackend", FILE_AS_IT_IS)
"""Names under which transformers takes tokenizer.json as it is."""

_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json")
"""Files that transformers reads for a tokenizer beside tokenizer.json."""

_NOT_ENCODING = ("version", "truncation", "padding", "decoder")
"""Fields that do not decide a text's ids: saving a tokenizer writes the truncation and padding of
its last batch into the file."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a tokenizer.json is read."""

    class_name: str = FILE_AS_IT_IS
    """transformers' class that reads it, and the files beside it."""
    lower_case: bool = False
    """Whether sentence-transformers lowers each text first."""


AS_IT_IS = Reading()


def tokenizer_class(model_type: str, declared: str | None, file: Path) -> str:
    """The class that transformers' AutoTokenizer picks, for a verified family.

    ``declared`` is ``tokenizer_class`` in ``file``. Raises ``ModelError`` for a class not listed.
    """
    family = FAMILIES[model_type]
    name = (declared or family.tokenizer_class).removesuffix("Fast")
    if family.tokenizer_class_is_fixed or name == family.tokenizer_class:
        return family.tokenizer_class
    if name in _NO_CLASS:
        return FILE_AS_IT_IS
    if name not in CLASSES:
        raise ModelError(
            f"{file} sets tokenizer_class to {declared!r}; supported: {', '.join(CLASSES)} and "
            "PreTrainedTokenizerFast. Save the tokenizer as a PreTrainedTokenizerFast"
        )
    return name


def backend_json(file: Path, reading: Reading) -> str:
    """The tokenizer that ``file``, a tokenizer.json, and the files beside it make.

    It is JSON of the tokenizers library, without truncation and padding; made once per machine and
    version of the files. Raises ``ModelError`` for files that cannot be read.
    """
    return kept_text(file, _kind(file, reading), lambda: _build(file, reading))


def backend_digest(file: Path, reading: Reading) -> str:
    """SHA-256 of the rules by which the tokenizer makes ids, 64 hex digits; lengths do not count.

    Equal settings have equal digests, whichever file holds them. Fields without a value do not
    count: libraries of another version may not know them.
    """
    return _cached_digest(file, reading, _kind(file, reading), file_version(file))


@lru_cache(maxsize=64)
def _cached_digest(file: Path, reading: Reading, kind: str, version_of_file: str) -> str:
    return kept_text(file, f"digest of {kind}", lambda: _digest(backend_json(file, reading)))


def _kind(file: Path, reading: Reading) -> str:
    """A text that names everything that decides the tokenizer beside tokenizer.json."""
    beside = hashlib.sha256()
    for path in map(file.with_name, _BESIDE):
        content = path.read_bytes() if path.is_file() else b""
        beside.update(hashlib.sha256(content).digest())
    return f"tokenizer {reading} {_libraries()} {beside.hexdigest()}"


@cache
def _libraries() -> str:
    return f"tokenizers {version('tokenizers')} transformers {version('transformers')}"


def _digest(text: str) -> str:
    content = {k: v for k, v in json.loads(text).items() if k not in _NOT_ENCODING}
    canonical = json.dumps(_without_nulls(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def _build(file: Path, reading: Reading) -> str:
    try:
        made = _read(file, reading.class_name)
        inner: tokenizers.Tokenizer = made.backend_tokenizer
        inner.no_truncation()
        inner.no_padding()
        if reading.lower_case:
            _lower(inner)
        _refuse_other_segments(inner, file)
    except ModelError:
        raise
    except Exception as error:  # the libraries raise plain Exception for a bad file
        raise unreadable(file, error) from error
    if made.truncation_side != "right":
        raise ModelError(
            f"{file} or tokenizer_config.json sets truncation_side to {made.truncation_side!r}: "
            "supported is right, which cuts off a text's end"
        )
    return str(inner.to_str())


def _read(file: Path, class_name: str) -> Any:
    """transformers' tokenizer. Its classes load no torch; AutoTokenizer does."""
    import transformers

    fast = transformers.PreTrainedTokenizerFast
    if class_name == "LlamaTokenizer" and fast._tokenizer_json_has_byte_level(str(file.parent)):
        class_name = FILE_AS_IT_IS  # Llama 3's kind, under the name of Llama 2's
    return getattr(transformers, class_name).from_pretrained(
        file.parent, local_files_only=True, trust_remote_code=False
    )


def _lower(inner: tokenizers.Tokenizer) -> None:
    """Add lower case as the first step, as sentence-transformers does; never a second time."""
    normalizer: Any = inner.normalizer
    is_sequence = isinstance(inner.normalizer, normalizers.Sequence)
    steps = list(normalizer) if is_sequence else [normalizer]
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        others = [step for step in steps if step is not None]
        inner.normalizer = normalizers.Sequence([normalizers.Lowercase(), *others])


def _refuse_other_segments(inner: tokenizers.Tokenizer, file: Path) -> None:
    """Raise ``ModelError`` for a tokenizer that puts tokens into another segment than 0.

    The text has a sign that most vocabularies lack: a tokenizer without its unk_token fails here,
    not at a document.
    """
    if any(inner.encode("a 🛸").type_ids):
        raise ModelError(
            f"{file} has a post_processor that puts a text's tokens into other segments than 0 "
            "(type_id); use the tokenizer the model was published with"
        )


def unreadable(file: Path, error: Exception) -> ModelError:
    """The error for a tokenizer that a library cannot read."""
    return ModelError(
        f"{file} is not a tokenizer file that can be read, or does not go with the tokens and "
        f"settings of tokenizer_config.json ({type(error).__name__}: {error}); download it again"
    )
