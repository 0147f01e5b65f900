"""What a checkpoint folder says about itself: files, family, pooling, prompts, limits.

Reads the layout of sentence-transformers and, where a file is missing, the published rules of the
model's family. What it cannot honour exactly it refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_core.encoder.checkpoint.adapter import CONFIG as ADAPTER_CONFIG
from embedding_core.encoder.checkpoint.adapter import Adapter
from embedding_core.encoder.checkpoint.backend import Reading, tokenizer_class
from embedding_core.encoder.checkpoint.families import FAMILIES, UNVERIFIED, Family, Pooling
from embedding_core.encoder.checkpoint.files import (
    read_json,
    read_settings,
    require,
    weight_files,
    whole_number,
)
from embedding_core.encoder.checkpoint.modules import (
    Dense,
    Modules,
    check_chain,
    read_modules,
    read_pooling,
    read_prompts,
    read_sentence_config,
)
from embedding_core.encoder.checkpoint.treatments.folder import PROCESSOR_FILES
from embedding_core.encoder.checkpoint.treatments.model_config import ROPE, config_rules
from embedding_core.encoder.checkpoint.treatments.rule import offence, refuse_others
from embedding_core.encoder.checkpoint.treatments.tokenizer_config import TOKENIZER_CONFIG
from embedding_core.errors import ModelError
from embedding_core.plurals import counted

STABLE_ROPES = (None, "default", "linear", "yarn", "llama3")
"""Rotary encodings that do not depend on what else is in the batch."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that can be loaded, as its own files describe it."""

    config_file: Path
    tokenizer_file: Path
    reading: Reading
    """How ``tokenizer_file`` is read."""
    weight_files: tuple[Path, ...]
    identity_files: tuple[Path, ...]
    """Every file that decides the vectors beside the tokenizer: weights, configs, modules."""
    family: str
    """``model_type`` of config.json."""
    verified: bool
    """Whether the family is in ``FAMILIES`` and the config asks for nothing that is not tested."""
    causal: bool
    """Whether a token sees only the tokens before it; meaningless for an unverified model."""
    hidden_size: int
    """Length of a token's vector, before Dense modules."""
    position_limit: int
    """Most tokens the model has positions for."""
    padding_position: int | None
    """Position of padding, after which positions count; None: they count from 0."""
    max_tokens: int
    """Longest input that the checkpoint sets, in tokens, special tokens included."""
    vocab_size: int
    pad_token_id: int
    pooling: Pooling
    dense: tuple[Dense, ...]
    """Linear layers between pooling and the vector, in order."""
    output_size: int
    """Length of a full vector."""
    dim: int
    """Values of a vector that the checkpoint keeps."""
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
        """Rules by which the model is run."""
        return FAMILIES[self.family] if self.verified else UNVERIFIED

    @property
    def trailing_token(self) -> str | None:
        """Token that every text must end with exactly once."""
        if self.pooling == "last" and self.rules.trailing_token is not None:
            return self.rules.trailing_token
        return self.added_end


def read_checkpoint(root: Path, allow_unverified: bool = False) -> Checkpoint:
    """Describe the checkpoint in ``root``. Raises ``ModelError`` for what cannot be run exactly.

    ``allow_unverified`` accepts an architecture that is not in ``FAMILIES``, and settings that are
    not tested; the checkpoint's own code is never run.
    """
    modules = read_modules(root)
    directory = modules.transformer
    _refuse_files(directory)
    config_file = require(directory, "config.json", "name the folder that holds the model")
    config = read_settings(config_file)
    verified = _is_verified(config, config_file, allow_unverified)
    family = FAMILIES[config["model_type"]] if verified else UNVERIFIED
    tokenizer_config = _tokenizer_config(directory, allow_unverified)
    sentence = read_sentence_config(directory)
    prompts = read_prompts(root, family)
    weights = weight_files(directory)
    hidden_size = whole_number(config, _hidden_size_key(config), config_file)
    check_chain(modules.dense, hidden_size)
    vocab_size = whole_number(config, "vocab_size", config_file)
    padding = _padding_position(config, family, config_file)
    offset = 0 if padding is None else padding + 1
    positions = whole_number(config, "max_position_embeddings", config_file) - offset
    if positions < 1:
        raise ModelError(
            f"{config_file} sets pad_token_id to {padding}, which leaves no positions for tokens; "
            "download it again"
        )
    output_size = modules.dense[-1].n_out if modules.dense else hidden_size
    return Checkpoint(
        config_file=config_file,
        tokenizer_file=require(directory, "tokenizer.json", "save the model's fast tokenizer"),
        reading=Reading(
            _tokenizer_class(config, tokenizer_config, config_file, verified), sentence.lower_case
        ),
        weight_files=weights,
        identity_files=(*weights, config_file, *_dense_files(modules)),
        family=str(config.get("model_type")),
        verified=verified,
        causal=family.causal and not config.get("use_bidirectional_attention"),
        hidden_size=hidden_size,
        position_limit=positions,
        padding_position=padding,
        max_tokens=longest_input(sentence.longest_input, tokenizer_config, positions, directory),
        vocab_size=vocab_size,
        pad_token_id=_pad_token_id(config, vocab_size, config_file),
        pooling=read_pooling(root, modules, family),
        dense=modules.dense,
        output_size=output_size,
        dim=min(prompts.dim or output_size, output_size),
        query_prompt=prompts.query_prompt,
        document_prompt=prompts.document_prompt,
        added_end=added_end(directory, tokenizer_config),
    )


def _refuse_files(directory: Path) -> None:
    """Refuse files that transformers would use unasked: a processor, an adapter."""
    for name in PROCESSOR_FILES:
        if (directory / name).is_file():
            raise ModelError(
                f"{directory} has a {name}, so a processor would stand in for its tokenizer; "
                "remove the file if the model was trained on texts alone"
            )
    _refuse_adapter(directory)


def _refuse_adapter(directory: Path) -> None:
    """Refuse an adapter beside the weights: transformers would add it to them unasked."""
    file = directory / ADAPTER_CONFIG
    if not file.is_file():
        return
    if list(directory.glob("model*.safetensors")):
        raise ModelError(
            f"{directory} holds a model and an adapter; remove {file.name} if the adapter is "
            "merged already, else move it to another folder and name that in model.adapter"
        )
    raise ModelError(
        f"{directory} holds an adapter, not a model: name it in model.adapter, and its base "
        f"({read_json(file).get('base_model_name_or_path')!r}) in model.name"
    )


def _dense_files(modules: Modules) -> list[Path]:
    """Files that decide the Dense modules: their own, and modules.json for their order."""
    if not modules.dense or modules.file is None:
        return []
    files = (file for dense in modules.dense for file in (dense.config_file, dense.weight_file))
    return [modules.file, *files]


def _is_verified(config: dict[str, Any], file: Path, allow_unverified: bool) -> bool:
    """Whether the computation is tested here. Raises ``ModelError`` if it is neither tested nor
    allowed."""
    if "auto_map" in config:
        raise ModelError(f"{file} holds code to be run (auto_map), which is refused")
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{file} is an encoder and a decoder; use a model that is one of them")
    for rope in _ropes(config):
        kind = rope.get("rope_type", rope.get("type"))
        if kind not in STABLE_ROPES:
            raise ModelError(f"{file} sets rope_type {kind}, which makes a vector depend on others")
    why = _untested(config)
    if why is not None and not allow_unverified:
        raise ModelError(f"{file} {why}. allow_unverified runs it padded, by transformers alone")
    return why is None


def _untested(config: dict[str, Any]) -> str | None:
    """The first setting that is not tested here; None when all are."""
    model_type = str(config.get("model_type"))
    if model_type not in FAMILIES:
        supported = ", ".join(sorted(FAMILIES))
        return f"has model_type {model_type!r}, which is not verified; supported: {supported}"
    offences = (offence(rope, ROPE) for rope in _ropes(config))
    return next(filter(None, offences), None) or offence(config, config_rules(model_type))


def _ropes(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Settings of the rotary encoding: one set, or one set for each kind of layer."""
    ropes = []
    for rope in (config.get("rope_parameters") or {}, config.get("rope_scaling") or {}):
        by_layer = [value for value in rope.values() if isinstance(value, dict)]
        ropes += by_layer or [rope]
    return ropes


def _tokenizer_config(directory: Path, allow_unverified: bool) -> dict[str, Any]:
    """Read the tokenizer's settings and refuse those that are not honoured.

    A key that no table has is honoured if it names a token: transformers' class makes the token.
    """
    file = directory / "tokenizer_config.json"
    settings = read_settings(file)
    in_table = {key for rule in TOKENIZER_CONFIG for key in rule.keys}
    checked = {
        key: value
        for key, value in settings.items()
        if key in in_table or not (allow_unverified or key.endswith("_token"))
    }
    refuse_others(checked, TOKENIZER_CONFIG, file)
    return settings


def _tokenizer_class(
    config: dict[str, Any], tokenizer_config: dict[str, Any], config_file: Path, verified: bool
) -> str:
    if not verified:
        return UNVERIFIED.tokenizer_class
    declared = tokenizer_config.get("tokenizer_class")
    file = config_file if declared is None else config_file.with_name("tokenizer_config.json")
    return tokenizer_class(config["model_type"], declared or config.get("tokenizer_class"), file)


def _hidden_size_key(config: dict[str, Any]) -> str:
    family = FAMILIES.get(str(config.get("model_type")), UNVERIFIED)
    return family.hidden_size_key


def _pad_token_id(config: dict[str, Any], vocab_size: int, file: Path) -> int:
    value = config.get("pad_token_id")
    if value is not None and whole_number(config, "pad_token_id", file) not in range(
        -vocab_size, vocab_size
    ):
        raise ModelError(
            f"{file} sets pad_token_id to {value}, but the vocabulary has "
            f"{counted(vocab_size, 'token')}; download it again"
        )
    return max(value or 0, 0)


def _padding_position(config: dict[str, Any], family: Family, file: Path) -> int | None:
    """RoBERTa's family leaves the positions up to the padding token's number unused."""
    if not family.padding_position_is_set or "pad_token_id" not in config:
        return family.padding_position
    number = whole_number(config, "pad_token_id", file)
    if number < -1:
        raise ModelError(f"{file} sets pad_token_id to {number}; the least is -1")
    return number


def added_end(directory: Path, config: dict[str, Any]) -> str | None:
    """The end token of Mistral's and Llama's families, which tokenizer.json's rules may not add."""
    if not config.get("add_eos_token"):
        return None
    token = config.get("eos_token")
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise ModelError(
            f"{directory / 'tokenizer_config.json'} sets add_eos_token but names no eos_token; "
            "download it again"
        )
    return content


def longest_input(
    in_sentences: int | None, tokenizer_config: dict[str, Any], positions: int, directory: Path
) -> int:
    """The limit of sentence-transformers' own file (``in_sentences``), else the tokenizer's, else
    all positions."""
    limit = tokenizer_config.get("model_max_length", tokenizer_config.get("max_len"))
    if in_sentences is None and limit is not None:
        try:
            in_sentences = int(limit)
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelError(
                f"{directory / 'tokenizer_config.json'} sets model_max_length to {limit!r} where a "
                "whole number is needed"
            ) from error
    return positions if in_sentences is None else min(in_sentences, positions)
