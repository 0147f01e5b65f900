"""Reading the files of a checkpoint, with errors that say which file and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from embedding_core.errors import ModelError
from embedding_core.store.untrusted import json_text

_SHA256 = re.compile(r"[0-9a-f]{64}")


def require(directory: Path, name: str, action: str) -> Path:
    """The file, which must be there; ``action`` is what a person is to do if it is not."""
    path = directory / name
    if not path.is_file():
        raise ModelError(f"{directory} has no {name}; {action}")
    return path


def read_json(path: Path) -> Any:
    """The file's content."""
    try:
        return json_text.read_json(path.read_bytes())
    except (ValueError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error}); download it again") from error


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a file; none when there is no such file."""
    settings = read_json(path) if path.is_file() else {}
    if not isinstance(settings, dict):
        raise ModelError(f"{path} holds no settings but a {type(settings).__name__}")
    return settings


def whole_number(config: dict[str, Any], key: str, file: Path) -> int:
    """A setting that must be there and be an integer."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(f"{file} has {key} {value!r} where a whole number is needed")
    return value


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The safetensors files of a model, each whole; never a pickle."""
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        names = {single.name}
    elif index.is_file():
        names = _listed(index)
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


def _listed(index: Path) -> set[str]:
    """Names of the weight files that an index lists."""
    listed = read_settings(index).get("weight_map", {})
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise ModelError(f"{index} names no files of weights; download it again")
    return set(listed.values())


def _shard(directory: Path, name: str) -> Path:
    """A weight file that is there, inside the folder, and whole."""
    if Path(name).name != name:
        raise ModelError(f"{directory} names the weight file {name!r} outside its own folder")
    path = require(directory, name, "copy the whole checkpoint")
    shapes(path)
    return path


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in a safetensors file, from its header. Refuses a damaged one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            names = tensors.keys()
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged ({error}); download it again") from error


def check_published(path: Path, digest: str) -> None:
    """Raise ``ModelError`` for a file of the hub's cache that is not what the hub published.

    The cache calls a large file by its published SHA-256; of others nothing is known.
    """
    stored = path.resolve()
    published = stored.name if stored.parent.name == "blobs" else ""
    if _SHA256.fullmatch(published) and published != digest:
        raise ModelError(
            f"{path} is damaged: its SHA-256 is {digest}, the hub published {published}; delete "
            f"{stored} and run again"
        )
