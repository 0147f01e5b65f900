"""The engine of checkpoints: folders, packages, buckets and the hub, run by torch on this machine.

Describing loads neither torch nor, once a tokenizer was read on this machine, transformers. Digests
are computed once per machine and file version.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from embedding_core.encoder.checkpoint.adapter import read_adapter
from embedding_core.encoder.checkpoint.cache import file_digest, folder_version
from embedding_core.encoder.checkpoint.describe import Checkpoint, read_checkpoint
from embedding_core.encoder.checkpoint.files import check_published
from embedding_core.encoder.checkpoint.latest import Located
from embedding_core.encoder.checkpoint.locate import is_location, locate
from embedding_core.encoder.checkpoint.tokenizer import (
    CheckpointTokenizer,
    checkpoint_tokenizer,
    tokenizer_digest,
)
from embedding_core.encoder.engines import ModelInfo
from embedding_core.errors import ModelError
from embedding_core.plurals import counted
from embedding_core.protocols import TextEncoder
from embedding_core.recipe import ModelSpec, Resources
from embedding_core.records import Space

DTYPE_CLASSES: dict[str, Literal["half", "full", "fp8"]] = {"fp32": "full", "fp8": "fp8"}
"""Any other type is of class ``half``."""


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A checkpoint that is described and not loaded; see ``ModelInfo``."""

    space: Space
    dtype: str
    """The recipe's ``model.dtype``: auto, fp16, bf16, fp32 or fp8."""
    checkpoint: Checkpoint

    @property
    def directory(self) -> Path:
        """The checkpoint's folder on this machine."""
        return self.checkpoint.directory

    @property
    def tokenizer(self) -> CheckpointTokenizer:
        """See ``ModelInfo.tokenizer``."""
        return self.tokenizer_for(self.space.document_prompt)

    def tokenizer_for(self, document_prompt: str) -> CheckpointTokenizer:
        """See ``ModelInfo.tokenizer_for``."""
        return checkpoint_tokenizer(self.checkpoint, document_prompt)


class CheckpointEngine:
    """The engine of every name that says where a checkpoint is."""

    options = frozenset(
        {
            "adapter",
            "adapter_revision",
            "allow_unverified",
            "dim",
            "dtype",
            "max_tokens",
            "revision",
            "storage",
        }
    )

    def claims(self, name: str) -> bool:
        """Whether the name is a folder, a prefix of a bucket, a package or a hub id by its form."""
        return is_location(name)

    def describe(self, model: ModelSpec) -> CheckpointInfo:
        """See ``Engine.describe``. Looks where the model is now; its files are read once in this
        process as long as none of them changes."""
        if model.adapter is None and model.adapter_revision is not None:
            raise ModelError(
                f"adapter_revision {model.adapter_revision!r} without an adapter; remove it"
            )
        folders = [locate(model.name, model.revision, model.storage)]
        if model.adapter is not None:
            folders.append(locate(model.adapter, model.adapter_revision, model.storage))
        versions = tuple(folder_version(folder.directory) for folder in folders)
        return _described(model, tuple(folders), versions)

    def load(self, info: ModelInfo, resources: Resources) -> TextEncoder:
        """See ``Engine.load``."""
        from embedding_core.encoder.local.transformer import TransformerEncoder  # torch: seconds

        assert isinstance(info, CheckpointInfo)
        return TransformerEncoder(
            info.space,
            info.checkpoint,
            info.dtype,
            resources.device,
            resources.batch_tokens,
            cpu_dtype=resources.cpu_dtype,
        )


CHECKPOINT = CheckpointEngine()


@lru_cache(maxsize=8)
def _described(
    model: ModelSpec, folders: tuple[Located, ...], _versions: tuple[object, ...]
) -> CheckpointInfo:
    """The model in the first of ``folders``, with the adapter in the second if there is one.

    ``_versions`` are those of the folders' files, so that a changed file is read again.
    """
    location, *adapters = folders
    checkpoint = read_checkpoint(location.directory, model.allow_unverified)
    _check_limits(model, checkpoint)
    shown = model.name
    for folder in adapters:
        assert model.adapter is not None
        adapter = read_adapter(folder.directory, model.adapter, model.name, checkpoint.weight_files)
        checkpoint = replace(checkpoint, adapter=adapter)
        shown += f" + {model.adapter}" + (f"@{folder.revision}" if folder.revision else "")
    space = Space(
        model=shown,
        revision=location.revision,
        identity=_weight_digests(checkpoint),
        tokenizer=tokenizer_digest(checkpoint),
        pooling=checkpoint.pooling,
        query_prompt=checkpoint.query_prompt,
        document_prompt=checkpoint.document_prompt,
        max_tokens=model.max_tokens or checkpoint.max_tokens,
        dim=model.dim or checkpoint.dim,
        dtype_class=DTYPE_CLASSES.get(model.dtype, "half"),
    )
    return CheckpointInfo(space, model.dtype, checkpoint)


def _weight_digests(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Digests of everything that decides the vectors beside the tokenizer, sorted."""
    adapter = checkpoint.adapter
    files = [*checkpoint.identity_files, *([] if adapter is None else [adapter.weight_file])]
    digests = [file_digest(path) for path in files]
    for path, digest in zip(files, digests, strict=True):
        check_published(path, digest)
    return tuple(sorted(digests if adapter is None else [*digests, adapter.scales_digest]))


def _check_limits(model: ModelSpec, checkpoint: Checkpoint) -> None:
    if model.dim is not None and model.dim > checkpoint.output_size:
        raise ModelError(
            f"dim {model.dim} is larger than the {counted(checkpoint.output_size, 'value')} that "
            f"{model.name!r} gives; use at most {checkpoint.output_size}"
        )
    if model.max_tokens is not None and model.max_tokens > checkpoint.position_limit:
        raise ModelError(
            f"max_tokens {model.max_tokens} is above the "
            f"{counted(checkpoint.position_limit, 'position')} of {model.name!r}; use at most "
            f"{checkpoint.position_limit}"
        )
