"""What a checkpoint folder says about itself: files, family, pooling, prompts, limits.

Reads the layout of sentence-transformers (``modules.json`` and what it names) and, where a file
is missing, the published rules of the model's family. What it cannot honour exactly it refuses:
a module skipped in silence would be another embedding space under the same name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedding_core.errors import ModelError

Pooling = Literal["mean", "cls", "last"]

QWEN3_QUERY_PROMPT = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)
"""The default task of the Qwen3-Embedding model card; no space after ``Query:``."""


@dataclass(frozen=True, slots=True)
class Family:
    """Rules of a verified architecture for what its checkpoints leave unsaid."""

    pooling: Pooling | None
    """Pooling when there is no modules.json; None: it must be said."""
    query_prompt: str
    """Query prompt when there is no config_sentence_transformers.json."""
    trailing_token: str | None
    """Token that a last-token pooled text must end with exactly once."""


FAMILIES = {
    "qwen3": Family("last", QWEN3_QUERY_PROMPT, "<|endoftext|>"),
    "bert": Family(None, "", None),
}
"""Architectures whose packed forward is verified against transformers' own, by ``model_type``."""

POOLINGS: dict[str, Pooling] = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
"""sentence-transformers' words for pooling, new and old, and ours."""

STABLE_ROPES = (None, "default", "linear", "yarn", "llama3")
"""Rotary encodings that do not depend on what else is in the batch."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder that can be loaded, as its own files describe it."""

    config_file: Path
    tokenizer_file: Path
    weight_files: tuple[Path, ...]
    family: str
    """``model_type`` of config.json, one of ``FAMILIES``."""
    hidden_size: int
    """Length of a full vector."""
    position_limit: int
    """Most tokens the model has positions for."""
    max_tokens: int
    """Most tokens the checkpoint wants to be given, special tokens included."""
    vocab_size: int
    pooling: Pooling
    query_prompt: str
    document_prompt: str

    @property
    def directory(self) -> Path:
        """The folder of config.json and the weights."""
        return self.config_file.parent

    @property
    def trailing_token(self) -> str | None:
        """Token every text must end with exactly once."""
        return FAMILIES[self.family].trailing_token if self.pooling == "last" else None


def read_checkpoint(root: Path) -> Checkpoint:
    """Describe the checkpoint in ``root``. Raises ``ModelError`` for what cannot be run exactly."""
    modules = _modules(root)
    directory = root / modules.get("Transformer", "")
    config_file = _require(directory, "config.json", "name the folder that holds the model")
    config = _json(config_file)
    family = _family(config, config_file)
    _refuse_lower_casing(directory)
    query_prompt, document_prompt = _prompts(root, family)
    return Checkpoint(
        config_file=config_file,
        tokenizer_file=_require(directory, "tokenizer.json", "save the model's fast tokenizer"),
        weight_files=_weight_files(directory),
        family=family,
        hidden_size=_number(config, "hidden_size", config_file),
        position_limit=_number(config, "max_position_embeddings", config_file),
        max_tokens=_max_tokens(directory, config),
        vocab_size=_number(config, "vocab_size", config_file),
        pooling=_pooling(root, modules, family),
        query_prompt=query_prompt,
        document_prompt=document_prompt,
    )


def _modules(root: Path) -> dict[str, str]:
    """Module name to its folder, from modules.json; empty when there is none."""
    file = root / "modules.json"
    if not file.is_file():
        return {}
    listed = [(str(m["type"]).rsplit(".", 1)[-1], str(m["path"]), m["type"]) for m in _json(file)]
    for name, _, kind in listed:
        if not kind.startswith("sentence_transformers.") or name not in (
            "Transformer",
            "Pooling",
            "Normalize",
        ):
            raise ModelError(
                f"{file} has a module {kind}, which embedlake does not run; its vectors would be "
                "wrong without it. Use a checkpoint of Transformer, Pooling and Normalize"
            )
    names = [name for name, _, _ in listed]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ModelError(
            f"{file} lists {', '.join(names) or 'nothing'}; "
            "supported: Transformer, Pooling and optionally Normalize"
        )
    return {name: path for name, path, _ in listed}


def _pooling(root: Path, modules: dict[str, str], family: str) -> Pooling:
    if not modules:
        default = FAMILIES[family].pooling
        if default is None:
            raise ModelError(
                f"{root} has no modules.json, so its pooling is unknown; save the model with "
                "sentence-transformers, which writes it"
            )
        return default
    file = _require(root / modules["Pooling"], "config.json", "copy the whole checkpoint")
    config = _json(file)
    mode = config.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else mode
    if modes is None:
        modes = [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ModelError(f"{file} asks for pooling {modes}; supported: mean, cls or last token")
    if not config.get("include_prompt", True):
        raise ModelError(f"{file} leaves prompts out of the pooling, which is not supported")
    return POOLINGS[modes[0]]


def _prompts(root: Path, family: str) -> tuple[str, str]:
    """(query, document) prompts, chosen as sentence-transformers' encode_query and _document do."""
    file = root / "config_sentence_transformers.json"
    if not file.is_file():
        return FAMILIES[family].query_prompt, ""
    prompts = _json(file).get("prompts") or {}
    document = next((prompts[k] for k in ("document", "passage", "corpus") if k in prompts), "")
    return prompts.get("query") or "", document or ""


def _family(config: dict[str, Any], file: Path) -> str:
    """The verified family, when nothing in the config makes it another computation."""
    if "auto_map" in config:
        raise ModelError(f"{file} wants to run code of its own (auto_map), which is refused")
    family = config.get("model_type")
    if family not in FAMILIES:
        raise ModelError(
            f"{file} has model_type {family!r}, which is not verified; "
            f"supported: {', '.join(sorted(FAMILIES))}"
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type"))
    unsupported = {
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "is_decoder": bool(config.get("is_decoder")),
        "position_embedding_type": config.get("position_embedding_type", "absolute") != "absolute",
        f"rope_type {rope_type}": rope_type not in STABLE_ROPES,
    }
    for setting, present in unsupported.items():
        if present:
            raise ModelError(f"{file} sets {setting}, which is not verified for {family}")
    return str(family)


def _refuse_lower_casing(directory: Path) -> None:
    """sentence-transformers can lower the text before its tokenizer sees it; we do not."""
    file = directory / "sentence_bert_config.json"
    if file.is_file() and _json(file).get("do_lower_case"):
        raise ModelError(
            f"{file} sets do_lower_case; save the model with a tokenizer that lowers text itself "
            "and set it to false"
        )


def _max_tokens(directory: Path, config: dict[str, Any]) -> int:
    """The smallest of what the files name; sentence-transformers takes the same."""
    limits = [int(config["max_position_embeddings"])]
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        if (directory / name).is_file():
            limit = _json(directory / name).get(key)
            limits += [int(limit)] if limit is not None else []
    return min(limits)


def _weight_files(directory: Path) -> tuple[Path, ...]:
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        names = {single.name}
    elif index.is_file():
        names = set(_json(index).get("weight_map", {}).values())
    else:
        names = set()
    if not names:
        pickles = sorted(p.name for p in directory.glob("*.bin"))
        why = f"only {pickles[0]}, a pickle, which can run code" if pickles else "none"
        raise ModelError(
            f"{directory} has no safetensors weights ({why}); convert the model with "
            "save_pretrained(safe_serialization=True) or use a revision that has them"
        )
    return tuple(_shard(directory, name) for name in sorted(names))


def _shard(directory: Path, name: str) -> Path:
    """A weight file that is there, inside the folder, and whole."""
    from safetensors import SafetensorError, safe_open

    if Path(name).name != name:
        raise ModelError(f"{directory} names the weight file {name!r} outside its own folder")
    path = _require(directory, name, "copy the whole checkpoint")
    try:
        with safe_open(path, framework="numpy"):
            return path
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged ({error}); download it again") from error


def _require(directory: Path, name: str, action: str) -> Path:
    path = directory / name
    if not path.is_file():
        raise ModelError(f"{directory} has no {name}; {action}")
    return path


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error}); download it again") from error


def _number(config: dict[str, Any], key: str, file: Path) -> int:
    value = config.get(key)
    if not isinstance(value, int):
        raise ModelError(f"{file} has {key} {value!r} where a whole number is needed")
    return value
