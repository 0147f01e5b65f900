"""What a LoRA adapter changes of a checkpoint, read from its files and compared with the base's.

An adapter of another base is refused here, before anything is loaded. Knows neither torch nor peft.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_core.encoder.checkpoint.files import read_json, require, shapes
from embedding_core.errors import ModelError
from embedding_core.identity import digest

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_MATRIX = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_FROM_LAYER = re.compile(r"(?:^|\.)(\w+\.\d+\..+)$")
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""``init_lora_weights`` that leave the base as it is; others train against a changed base."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True)
class Target:
    """One linear layer that an adapter changes: its weight becomes ``W + scale · B A``."""

    module: str
    """The adapter's name for the layer, without the prefix of the class it was trained in; see
    ``tail``."""
    key: str
    """The start of its matrices' names in the file."""
    rank: int
    alpha: float
    scale: float


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that fits its base."""

    weight_file: Path
    use_rslora: bool
    targets: tuple[Target, ...]

    @property
    def scales_digest(self) -> str:
        """Digest of the factors of the matrices: all of the config that changes the vectors."""
        return digest([[target.module, target.scale] for target in self.targets])


def tail(module: str) -> str:
    """A module's name from its layer on, which is the same with and without a head on the model.

    ``model.layers.0.mlp.up_proj`` and ``layers.0.mlp.up_proj`` have the same tail.
    """
    match = _FROM_LAYER.search(module)
    return match[1] if match else ".".join(module.split(".")[-2:])


def read_adapter(folder: Path, name: str, base: str, weight_files: tuple[Path, ...]) -> Adapter:
    """The adapter called ``name`` in ``folder``, for the checkpoint called ``base``.

    Raises ``ModelError`` for a folder without an adapter, for an adapter of another base, and for
    what cannot be merged exactly here.
    """
    file = require(folder, CONFIG, "name the folder of a LoRA adapter that peft saved")
    config = read_json(file)
    weights = require(folder, WEIGHTS, "save the adapter with safe_serialization=True")
    _check_kind(config, file)
    trained_on = str(config.get("base_model_name_or_path") or "a base it does not name")
    hub_ids = {name.lower() for name in (trained_on, base) if _HUB_ID.fullmatch(name)}
    if len(hub_ids) == 2:
        raise ModelError(
            f"adapter {name!r} was trained on {trained_on!r}, not on {base!r}; set model.name to "
            f"its base, or, if both are the same weights, base_model_name_or_path in {CONFIG}"
        )
    matrices = shapes(weights)
    base_shapes = {
        tail(key.removesuffix(".weight")): shape
        for file in weight_files
        for key, shape in shapes(file).items()
    }
    modules = _modules(matrices, weights)
    if len(set(map(tail, modules))) < len(modules):
        raise ModelError(
            f"{weights} changes layers of two stacks with equal names; merge it with "
            "peft, save the model and name that"
        )
    targets = []
    for module, key in sorted(modules.items()):
        shape = base_shapes.get(tail(module))
        rank = _checked_rank(module, key, matrices, shape, (name, trained_on, base))
        alpha = _setting(config, "alpha_pattern", "lora_alpha", module, file)
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        targets.append(Target(tail(module), key, rank, alpha, scale))
    return Adapter(weights, bool(config.get("use_rslora")), tuple(targets))


def _check_kind(config: dict[str, Any], file: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{file} is of peft_type {config.get('peft_type')!r}; supported: LORA")
    start = config.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise ModelError(
            f"{file} was trained from init_lora_weights {start!r}, which changes the base itself; "
            "convert it to a plain LoRA when saving it (path_initial_model_for_weight_conversion)"
        )
    for key in ("alora_invocation_tokens", "layer_replication", "fan_in_fan_out"):
        if config.get(key):
            raise ModelError(
                f"{file} sets {key}, which cannot be merged here; leave model.adapter "
                "out and name a checkpoint that was merged with peft"
            )


def _modules(matrices: dict[str, tuple[int, ...]], file: Path) -> dict[str, str]:
    """The start of its matrices' names by module. Raises ``ModelError`` for any other content."""
    modules = {}
    for key in matrices:
        match = _MATRIX.fullmatch(key)
        if match is None:
            raise ModelError(
                f"{file} holds {key!r}; only LoRA matrices of linear layers are merged here. Merge "
                "it with peft (merge_and_unload), save the model and name that"
            )
        modules[match[1]] = key.removesuffix(f".lora_{match[2]}.weight")
    if not modules:
        raise ModelError(f"{file} holds no LoRA matrices; train and save the adapter again")
    return modules


def _checked_rank(
    module: str,
    key: str,
    matrices: dict[str, tuple[int, ...]],
    weight: tuple[int, ...] | None,
    names: tuple[str, str, str],
) -> int:
    """The matrices' rank; refuses those that do not fit the base's weight (n_out, n_in)."""
    name, trained_on, base = names
    a, b = (
        matrices.get(f"{key}.lora_{letter}.weight", ()) for letter in "AB"
    )  # (r, n_in), (n_out, r)
    if len(a) == len(b) == 2 and a[0] == b[1] and weight == (b[0], a[1]):
        return a[0]
    why = "has no such layer" if weight is None else f"has a weight of {weight} there"
    raise ModelError(
        f"adapter {name!r}, trained on {trained_on!r}, does not fit {base!r}: it changes {module} "
        f"by matrices of {a} and {b}, and the base {why}; set model.name to the adapter's own base"
    )


def _setting(config: dict[str, Any], pattern: str, default: str, module: str, file: Path) -> float:
    """A number of the config for a module, by peft's rule: the first pattern that fits."""
    value = config.get(default)
    try:
        for key, other in (config.get(pattern) or {}).items():
            if re.match(rf"(.*\.)?({key})$", module):
                value = other
                break
    except (re.error, AttributeError) as error:
        raise ModelError(f"{file} has a {pattern} that cannot be read: {error}") from error
    if not isinstance(value, int | float):
        raise ModelError(f"{file} has {default} {value!r} where a number is needed")
    return float(value)
