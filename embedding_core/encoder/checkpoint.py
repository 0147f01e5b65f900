"""What a checkpoint folder says about itself: files, family, pooling, prompts, limits.

Reads the layout of sentence-transformers and, where a file is missing, the published rules of the
model's family. What it cannot honour exactly it refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_core.encoder.adapter import CONFIG as ADAPTER_CONFIG
from embedding_core.encoder.adapter import Adapter
from embedding_core.encoder.families import FAMILIES, UNVERIFIED, Family, Pooling
from embedding_core.encoder.files import read_json, require, weight_files, whole_number
from embedding_core.encoder.modules import (
    Dense,
    Modules,
    check_chain,
    read_modules,
    read_pooling,
    read_prompts,
)
from embedding_core.errors import ModelError

STABLE_ROPES = (None, "default", "linear", "yarn", "llama3")
"""Rotary encodings that do not depend on what else is in the batch."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that can be loaded, as its own files describe it."""

    config_file: Path
    tokenizer_file: Path
    weight_files: tuple[Path, ...]
    identity_files: tuple[Path, ...]
    """Every file that decides the vectors beside the tokenizer: weights, configs, modules."""
    family: str
    """``model_type`` of config.json."""
    verified: bool
    """Whether the family is in ``FAMILIES`` and the config asks for nothing that is not tested."""
    causal: bool
    """Whether a token sees only what stands before it. Says nothing of an unverified model."""
    hidden_size: int
    """Length of a token's vector, before Dense modules."""
    position_limit: int
    """Most tokens the model has positions for."""
    position_offset: int
    """Position of a text's first token."""
    max_tokens: int
    """Most tokens the checkpoint wants to be given, special tokens included."""
    vocab_size: int
    pad_token_id: int
    pooling: Pooling
    dense: tuple[Dense, ...]
    """Linear layers between pooling and the vector, in order."""
    query_prompt: str
    document_prompt: str
    added_end: str | None
    """End token that tokenizer_config.json asks for, whatever tokenizer.json does."""
    adapter: Adapter | None = None
    """LoRA matrices to be merged into the weights."""

    @property
    def directory(self) -> Path:
        """The folder of config.json and the weights."""
        return self.config_file.parent

    @property
    def rules(self) -> Family:
        """How to run it."""
        return FAMILIES[self.family] if self.verified else UNVERIFIED

    @property
    def output_size(self) -> int:
        """Length of a full vector."""
        return self.dense[-1].n_out if self.dense else self.hidden_size

    @property
    def trailing_token(self) -> str | None:
        """Token every text must end with exactly once."""
        if self.pooling == "last" and self.rules.trailing_token is not None:
            return self.rules.trailing_token
        return self.added_end


def read_checkpoint(root: Path, allow_unverified: bool = False) -> Checkpoint:
    """Describe the checkpoint in ``root``. Raises ``ModelError`` for what cannot be run exactly.

    ``allow_unverified`` accepts an architecture that is not in ``FAMILIES``, and settings that are
    not tested; never code of the checkpoint's own.
    """
    modules = read_modules(root)
    directory = modules.transformer
    _refuse_adapter(directory)
    config_file = require(directory, "config.json", "name the folder that holds the model")
    config = read_json(config_file)
    verified = _is_verified(config, config_file, allow_unverified)
    family = FAMILIES[config["model_type"]] if verified else UNVERIFIED
    _refuse_lower_casing(directory)
    query_prompt, document_prompt = read_prompts(root, family)
    weights = weight_files(directory)
    hidden_size = whole_number(config, _hidden_size_key(config), config_file)
    check_chain(modules.dense, hidden_size)
    offset = _first_position(config, family)
    positions = whole_number(config, "max_position_embeddings", config_file) - offset
    return Checkpoint(
        config_file=config_file,
        tokenizer_file=require(directory, "tokenizer.json", "save the model's fast tokenizer"),
        weight_files=weights,
        identity_files=(*weights, config_file, *_dense_files(modules)),
        family=str(config.get("model_type")),
        verified=verified,
        causal=family.causal and not config.get("use_bidirectional_attention"),
        hidden_size=hidden_size,
        position_limit=positions,
        position_offset=offset,
        max_tokens=_max_tokens(directory, positions),
        vocab_size=whole_number(config, "vocab_size", config_file),
        pad_token_id=_pad_token_id(config),
        pooling=read_pooling(root, modules, family),
        dense=modules.dense,
        query_prompt=query_prompt,
        document_prompt=document_prompt,
        added_end=_added_end(directory),
    )


def _refuse_adapter(directory: Path) -> None:
    """transformers would put an adapter that lies beside the weights on top of them unasked."""
    file = directory / ADAPTER_CONFIG
    if not file.is_file():
        return
    if list(directory.glob("model*.safetensors")):
        raise ModelError(
            f"{directory} holds a model and an adapter; remove {file.name} if the adapter is "
            "merged already, else move it to a folder of its own and name that in model.adapter"
        )
    raise ModelError(
        f"{directory} holds an adapter, not a model: name it in model.adapter, and its base "
        f"({read_json(file).get('base_model_name_or_path')!r}) in model.name"
    )


def _dense_files(modules: Modules) -> list[Path]:
    """What decides the Dense modules: their files, and modules.json for their order."""
    if not modules.dense or modules.file is None:
        return []
    return [modules.file, *(f for one in modules.dense for f in (one.config_file, one.weight_file))]


def _is_verified(config: dict[str, Any], file: Path, allow_unverified: bool) -> bool:
    """Whether this very computation is tested; if not, it must be allowed."""
    if "auto_map" in config:
        raise ModelError(f"{file} wants to run code of its own (auto_map), which is refused")
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{file} is an encoder and a decoder; use a model that is one of them")
    for rope in _ropes(config):
        if rope not in STABLE_ROPES:
            raise ModelError(f"{file} sets rope_type {rope}, which makes a vector depend on others")
    why = _untested(config)
    if why is not None and not allow_unverified:
        raise ModelError(f"{file} {why}. allow_unverified runs it padded, by transformers alone")
    return why is None


def _untested(config: dict[str, Any]) -> str | None:
    """What of this config is not tested here; None when all of it is."""
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        supported = ", ".join(sorted(FAMILIES))
        return f"has model_type {model_type!r}, which is not verified; supported: {supported}"
    for key, expected in FAMILIES[model_type].required.items():
        value = config.get(key)
        if value is not None and value != expected:
            return f"sets {key} to {value!r}, which is not verified for {model_type}"
    return None


def _ropes(config: dict[str, Any]) -> list[str | None]:
    """Kinds of rotary encoding: one, or one for each kind of layer."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    of_layers = [value for value in rope.values() if isinstance(value, dict)]
    return [one.get("rope_type", one.get("type")) for one in of_layers or [rope]]


def _hidden_size_key(config: dict[str, Any]) -> str:
    family = FAMILIES.get(str(config.get("model_type")), UNVERIFIED)
    return family.hidden_size_key


def _pad_token_id(config: dict[str, Any]) -> int:
    value = config.get("pad_token_id")
    return value if isinstance(value, int) else 0


def _first_position(config: dict[str, Any], family: Family) -> int:
    """RoBERTa and its kin keep the positions up to the padding token's number unused."""
    if not family.positions_after_padding:
        return 0
    return int(config.get("pad_token_id") or 1) + 1


def _added_end(directory: Path) -> str | None:
    """Mistral's and Llama's kin: an end token beyond what tokenizer.json's own rules add."""
    file = directory / "tokenizer_config.json"
    config = read_json(file) if file.is_file() else {}
    if not config.get("add_eos_token"):
        return None
    token = config.get("eos_token")
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise ModelError(f"{file} sets add_eos_token but names no eos_token; download it again")
    return content


def _refuse_lower_casing(directory: Path) -> None:
    """sentence-transformers can lower the text before its tokenizer sees it; we do not."""
    file = directory / "sentence_bert_config.json"
    if file.is_file() and read_json(file).get("do_lower_case"):
        raise ModelError(
            f"{file} sets do_lower_case; save the model with a tokenizer that lowers text itself "
            "and set it to false"
        )


def _max_tokens(directory: Path, positions: int) -> int:
    """The smallest of what the files name; sentence-transformers takes the same."""
    limits = [positions]
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        if (directory / name).is_file():
            limit = read_json(directory / name).get(key)
            limits += [int(limit)] if limit is not None else []
    return min(limits)
