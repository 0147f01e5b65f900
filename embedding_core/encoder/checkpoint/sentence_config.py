"""sentence_bert_config.json, under whichever of its names: how texts go into the transformer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_core.encoder.checkpoint.files import read_settings, whole_number
from embedding_core.encoder.checkpoint.treatments import (
    CONFIG_KWARGS,
    MODEL_KWARGS,
    PROCESSOR_KWARGS,
    SENTENCE_CONFIG,
    SENTENCE_FILES,
    Rules,
    refuse_others,
)
from embedding_core.errors import ModelError

_NESTED: dict[str, Rules] = {
    "processor_kwargs": PROCESSOR_KWARGS,
    "tokenizer_args": PROCESSOR_KWARGS,
    "model_kwargs": MODEL_KWARGS,
    "model_args": MODEL_KWARGS,
    "config_kwargs": CONFIG_KWARGS,
    "config_args": CONFIG_KWARGS,
}
_TEXT_ALONE = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}


@dataclass(frozen=True, slots=True)
class SentenceConfig:
    """What the file asks for."""

    longest_input: int | None = None
    """Tokens; None when it does not say."""
    lower_case: bool = False
    """Whether texts are lowered before the tokenizer's own rules."""


def read_sentence_config(directory: Path) -> SentenceConfig:
    """The file in ``directory``. Raises ``ModelError`` for a setting that is not honoured.

    Of several such files sentence-transformers reads the first that says something.
    """
    for name in SENTENCE_FILES:
        file = directory / name
        settings = read_settings(file)
        if settings:
            limit = _checked_limit(settings, file)
            return SentenceConfig(limit, bool(settings.get("do_lower_case")))
    return SentenceConfig()


def _checked_limit(settings: dict[str, Any], file: Path) -> int | None:
    refuse_others(settings, SENTENCE_CONFIG, file)
    for key, rules in _NESTED.items():
        refuse_others(settings.get(key) or {}, rules, f"{file} in {key}")
    modalities = settings.get("modality_config") or _TEXT_ALONE
    if modalities != _TEXT_ALONE:
        raise ModelError(
            f"{file} sets modality_config to {modalities!r}; supported: {_TEXT_ALONE!r}. A model "
            "that takes messages would put its chat template around every text. Use another model"
        )
    for holder in (settings.get("tokenizer_args"), settings.get("processor_kwargs")):
        if holder and holder.get("model_max_length") is not None:
            return whole_number(holder, "model_max_length", file)
    if settings.get("max_seq_length") is None:
        return None
    return whole_number(settings, "max_seq_length", file)
