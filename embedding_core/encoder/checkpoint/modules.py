"""sentence-transformers' description of a checkpoint: modules.json and the configs beside it.

What cannot be honoured exactly is refused: a module skipped in silence would be another embedding
space under the same name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedding_core.encoder.checkpoint.families import Family, Pooling
from embedding_core.encoder.checkpoint.files import (
    read_json,
    read_settings,
    require,
    weight_files,
    whole_number,
)
from embedding_core.encoder.checkpoint.treatments.folder import SENTENCE_FILES
from embedding_core.encoder.checkpoint.treatments.rule import Rules, refuse_others
from embedding_core.encoder.checkpoint.treatments.sentence_config import (
    CONFIG_KWARGS,
    DENSE,
    MODEL_KWARGS,
    MODULE,
    NORMALIZE,
    POOLING,
    PROCESSOR_KWARGS,
    SENTENCE_CONFIG,
    SENTENCE_TRANSFORMERS_CONFIG,
)
from embedding_core.errors import ModelError
from embedding_core.plurals import counted

POOLINGS: dict[str, Pooling] = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
"""sentence-transformers' words for pooling, new and old, and ours."""

Activation = Literal["identity", "tanh"]

ACTIVATIONS: dict[str, Activation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
}
"""Activations of a Dense module, by the class that its config names."""

_NESTED: dict[str, Rules] = {
    "processor_kwargs": PROCESSOR_KWARGS,
    "tokenizer_args": PROCESSOR_KWARGS,
    "model_kwargs": MODEL_KWARGS,
    "model_args": MODEL_KWARGS,
    "config_kwargs": CONFIG_KWARGS,
    "config_args": CONFIG_KWARGS,
}
_TEXT_ALONE = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}

MODULES = ("Transformer", "Pooling", "Dense", "Normalize")
_ORDER = re.compile("Transformer Pooling( Dense)*( Normalize)?")


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer between pooling and the vector: ``activation(W x + b)``."""

    config_file: Path
    weight_file: Path
    """Holds ``linear.weight`` (n_out, n_in) and, with a bias, ``linear.bias`` (n_out,)."""
    n_in: int
    n_out: int
    has_bias: bool
    activation: Activation


@dataclass(frozen=True, slots=True)
class Modules:
    """The steps from text to vector, as modules.json lists them."""

    file: Path | None
    """modules.json; None for a checkpoint without it."""
    transformer: Path
    """Folder of the transformer's config.json, weights and tokenizer."""
    pooling: Path | None
    """Folder of the pooling's config."""
    dense: tuple[Dense, ...]


def read_modules(root: Path) -> Modules:
    """Read modules.json in ``root``. Raises ``ModelError`` for a module that we do not run."""
    file = root / "modules.json"
    if not file.is_file():
        return Modules(None, root, None, ())
    entries = read_json(file)
    if not isinstance(entries, list) or not all(map(_is_module, entries)):
        raise ModelError(f"{file} lists no modules; download it again")
    listed = [(m["type"].rsplit(".", 1)[-1], m["path"], m["type"]) for m in entries]
    for name, path, kind in listed:
        if not kind.startswith("sentence_transformers.") or name not in MODULES:
            raise ModelError(
                f"{file} has a module {kind}, which embedlake does not run; its vectors would be "
                "wrong without it. Use a checkpoint of Transformer, Pooling, Dense and Normalize"
            )
        if not (root / path).resolve().is_relative_to(root.resolve()):
            raise ModelError(f"{file} names {path!r}, outside its own folder")
    _refuse_unusual_modules(entries, file)
    names = [name for name, _, _ in listed]
    if not _ORDER.fullmatch(" ".join(names)):
        raise ModelError(
            f"{file} lists {', '.join(names) or 'nothing'}; "
            "supported: Transformer, Pooling, any number of Dense, and optionally Normalize"
        )
    dense = tuple(_dense(root / path) for name, path, _ in listed if name == "Dense")
    for name, path, _ in listed:
        if name == "Normalize":
            config = root / path / "config.json"
            refuse_others(read_settings(config), NORMALIZE, config)
    return Modules(file, root / listed[0][1], root / listed[1][1], dense)


def _is_module(entry: object) -> bool:
    """Whether an entry of modules.json has a type and a path, as texts."""
    texts = [entry.get("type"), entry.get("path")] if isinstance(entry, dict) else [None]
    return all(isinstance(text, str) and "\0" not in text for text in texts)


def read_pooling(root: Path, modules: Modules, family: Family) -> Pooling:
    """The pooling that the checkpoint names, else the family's."""
    if modules.pooling is None:
        if family.pooling is None:
            raise ModelError(
                f"{root} has no modules.json, so its pooling is unknown; save the model with "
                "sentence-transformers, which writes it"
            )
        return family.pooling
    file = require(modules.pooling, "config.json", "copy the whole checkpoint")
    config = read_settings(file)
    mode = config.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else mode
    if modes is None:
        modes = [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ModelError(f"{file} asks for pooling {modes}; supported: mean, cls or last token")
    if not config.get("include_prompt", True):
        raise ModelError(f"{file} leaves prompts out of the pooling, which is not supported")
    refuse_others(config, POOLING, file)
    return POOLINGS[modes[0]]


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts and length of a vector, as config_sentence_transformers.json sets them."""

    query_prompt: str
    document_prompt: str
    dim: int | None
    """Values of a vector that are kept; None: all."""


def read_prompts(root: Path, family: Family) -> Prompts:
    """Choose prompts as sentence-transformers documents it for encode_query and _document."""
    file = root / "config_sentence_transformers.json"
    if not file.is_file():
        return Prompts(family.query_prompt, "", None)
    config = read_settings(file)
    refuse_others(config, SENTENCE_TRANSFORMERS_CONFIG, file)
    prompts = config.get("prompts") or {}
    document = next((prompts[k] for k in ("document", "passage", "corpus") if k in prompts), "")
    dim = None if config.get("truncate_dim") is None else whole_number(config, "truncate_dim", file)
    if dim is not None and dim < 1:
        raise ModelError(f"{file} sets truncate_dim to {dim}; the least is 1")
    return Prompts(prompts.get("query") or "", document or "", dim)


@dataclass(frozen=True, slots=True)
class SentenceConfig:
    """Settings of sentence_bert_config.json, under any of its names: how texts go in."""

    longest_input: int | None = None
    """Tokens; None when the file does not say."""
    lower_case: bool = False
    """Whether texts are lowered before the tokenizer's own rules."""


def read_sentence_config(directory: Path) -> SentenceConfig:
    """Read sentence_bert_config.json, under the first of its names that holds a setting.

    sentence-transformers does the same. Raises ``ModelError`` for a setting that is not honoured.
    """
    for name in SENTENCE_FILES:
        file = directory / name
        settings = read_settings(file)
        if settings:
            limit = _checked_limit(settings, file)
            return SentenceConfig(limit, bool(settings.get("do_lower_case")))
    return SentenceConfig()


def check_chain(dense: tuple[Dense, ...], hidden_size: int) -> None:
    """Raise ``ModelError`` when a Dense module does not take what the step before it gives."""
    size = hidden_size
    for layer in dense:
        if layer.n_in != size:
            raise ModelError(
                f"{layer.config_file} takes vectors of {counted(layer.n_in, 'value')}, the step "
                f"before it gives {size}; copy the whole checkpoint"
            )
        size = layer.n_out


def _dense(folder: Path) -> Dense:
    file = require(folder, "config.json", "copy the whole checkpoint")
    config = read_settings(file)
    refuse_others(config, DENSE, file)
    [weights] = weight_files(folder)
    return Dense(
        config_file=file,
        weight_file=weights,
        n_in=whole_number(config, "in_features", file),
        n_out=whole_number(config, "out_features", file),
        has_bias=bool(config.get("bias", True)),
        activation=ACTIVATIONS[
            config.get("activation_function", "torch.nn.modules.activation.Tanh")
        ],
    )


def _refuse_unusual_modules(entries: list[dict[str, Any]], file: Path) -> None:
    for entry in entries:
        refuse_others(entry, MODULE, file)
    names = [entry.get("name") for entry in entries]
    if len(set(names)) < len(names):
        raise ModelError(f"{file} gives two modules one name ({names}), so one would be lost")


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
