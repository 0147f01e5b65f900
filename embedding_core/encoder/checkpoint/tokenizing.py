"""A checkpoint folder that may lack its weights: what counts tokens, and the limits it sets.

Another program runs the model, so nothing is asked of it that only running it here would need.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_core.encoder.checkpoint.backend import Reading, tokenizer_class
from embedding_core.encoder.checkpoint.describe import added_end, longest_input
from embedding_core.encoder.checkpoint.families import FAMILIES, UNVERIFIED, Family
from embedding_core.encoder.checkpoint.files import read_settings, require
from embedding_core.encoder.checkpoint.modules import read_prompts, read_sentence_config


@dataclass(frozen=True, slots=True)
class TokenizerFolder:
    """A folder with a tokenizer, as its own files describe it; see ``Checkpoint``."""

    tokenizer_file: Path
    reading: Reading
    trailing_token: str | None
    added_end: str | None
    max_tokens: int
    """Longest input in tokens, special tokens included."""
    query_prompt: str
    document_prompt: str


def read_tokenizer_folder(folder: Path) -> TokenizerFolder:
    """Describe the tokenizer in ``folder``. Raises ``ModelError`` for files that cannot be read."""
    file = require(folder, "tokenizer.json", "name the folder that holds it, or save the fast one")
    config = read_settings(folder / "config.json")
    tokenizer_config = read_settings(folder / "tokenizer_config.json")
    family = FAMILIES.get(str(config.get("model_type")), UNVERIFIED)
    sentence, prompts = read_sentence_config(folder), read_prompts(folder, family)
    end = added_end(folder, tokenizer_config)
    trailing = family.trailing_token if family.pooling == "last" else None
    limit = longest_input(
        sentence.longest_input, tokenizer_config, _positions(config, family), folder
    )
    return TokenizerFolder(
        tokenizer_file=file,
        reading=Reading(_class_name(folder, config, tokenizer_config), sentence.lower_case),
        trailing_token=end if trailing is None else trailing,
        added_end=end,
        max_tokens=limit,
        query_prompt=prompts.query_prompt,
        document_prompt=prompts.document_prompt,
    )


def _positions(config: dict[str, Any], family: Family) -> int:
    """Positions that the config has; where it does not say, as many as any model has."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return 2**20
    padding = family.padding_position
    return positions - (0 if padding is None else padding + 1)


def _class_name(folder: Path, config: dict[str, Any], tokenizer_config: dict[str, Any]) -> str:
    if config.get("model_type") not in FAMILIES:
        return UNVERIFIED.tokenizer_class
    declared = tokenizer_config.get("tokenizer_class") or config.get("tokenizer_class")
    return tokenizer_class(config["model_type"], declared, folder / "tokenizer_config.json")
