"""Everything about a model that can be known without loading it: its space and its tokenizer.

Loads neither torch nor, once a tokenizer was read on this machine, transformers. Digests are
computed once per machine and file version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from embedding_core.encoder import hashing
from embedding_core.encoder.base import Tokenizer
from embedding_core.encoder.checkpoint.adapter import read_adapter
from embedding_core.encoder.checkpoint.backend import backend_digest
from embedding_core.encoder.checkpoint.cache import file_digest
from embedding_core.encoder.checkpoint.describe import Checkpoint, read_checkpoint
from embedding_core.encoder.checkpoint.files import check_published
from embedding_core.encoder.checkpoint.locate import locate
from embedding_core.encoder.checkpoint.tokenizer import CheckpointTokenizer, load_tokenizer
from embedding_core.errors import ModelError
from embedding_core.records import Space

if TYPE_CHECKING:
    from embedding_core.store.storage import StorageSpec

DTYPES = ("auto", "fp16", "bf16", "fp32", "fp8")
DTYPE_CLASSES: dict[str, Literal["half", "full", "fp8"]] = {"fp32": "full", "fp8": "fp8"}
"""Any other type is of class ``half``."""


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that was found and described, not loaded. Small; pickles."""

    space: Space
    dtype: str
    """What was asked for: auto, fp16, bf16, fp32 or fp8."""
    checkpoint: Checkpoint | None
    """None for the hashing encoder."""

    @property
    def directory(self) -> Path | None:
        """The checkpoint's folder on this machine; None for the hashing encoder."""
        return None if self.checkpoint is None else self.checkpoint.directory

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; read at first use, then the same object in this process."""
        return self.tokenizer_for(self.space.document_prompt)

    def tokenizer_for(self, document_prompt: str) -> Tokenizer:
        """The tokenizer, counting documents with another prompt than the model's own."""
        if self.checkpoint is None:
            return hashing.HashingTokenizer()
        return checkpoint_tokenizer(self.checkpoint, document_prompt)


def checkpoint_tokenizer(checkpoint: Checkpoint, document_prompt: str) -> CheckpointTokenizer:
    """The checkpoint's tokenizer, one object per process, file version and prompt."""
    path, reading = checkpoint.tokenizer_file, checkpoint.reading
    digest = backend_digest(path, reading)
    return load_tokenizer(path, reading, digest, checkpoint.trailing_token, document_prompt)


def resolve_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    dim: int | None = None,
    max_tokens: int | None = None,
    allow_unverified: bool = False,
    adapter: str | None = None,
    adapter_revision: str | None = None,
    storage: StorageSpec | None = None,
) -> ResolvedModel:
    """Find and describe the model called ``name``; see ``Encoder.load`` for the arguments.

    Raises ``ModelError`` for a model that cannot be found, is not trusted, or cannot do what is
    asked, ``Transient`` when a bucket does not answer.
    """
    if dtype not in DTYPES:
        raise ModelError(f"unknown dtype {dtype!r}; use one of {', '.join(DTYPES)}")
    for setting, value in (("dim", dim), ("max_tokens", max_tokens)):
        if value is not None and value < 1:
            raise ModelError(f"{setting} is {value}; use at least 1, or leave it out")
    if adapter is None and adapter_revision is not None:
        raise ModelError(f"adapter_revision {adapter_revision!r} without an adapter; remove it")
    if name == hashing.NAME:
        return _resolve_hashing(revision, dtype, dim, max_tokens, adapter)
    located = locate(name, revision, storage)
    checkpoint = read_checkpoint(located.directory, allow_unverified)
    _check_limits(name, checkpoint, dim, max_tokens)
    shown = name
    if adapter is not None:
        found = locate(adapter, adapter_revision, storage)
        fitting = read_adapter(found.directory, adapter, name, checkpoint.weight_files)
        checkpoint = replace(checkpoint, adapter=fitting)
        shown = f"{name} + {adapter}" + (f"@{found.revision}" if found.revision else "")
    space = Space(
        model=shown,
        revision=located.revision,
        identity=_weight_digests(checkpoint),
        tokenizer=_tokenizer_digest(checkpoint),
        pooling=checkpoint.pooling,
        query_prompt=checkpoint.query_prompt,
        document_prompt=checkpoint.document_prompt,
        max_tokens=checkpoint.max_tokens if max_tokens is None else max_tokens,
        dim=checkpoint.dim if dim is None else dim,
        dtype_class=DTYPE_CLASSES.get(dtype, "half"),
    )
    return ResolvedModel(space=space, dtype=dtype, checkpoint=checkpoint)


def _weight_digests(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Of everything that decides the vectors beside the tokenizer, sorted."""
    adapter = checkpoint.adapter
    files = [*checkpoint.identity_files, *([] if adapter is None else [adapter.weight_file])]
    digests = [file_digest(path) for path in files]
    for path, digest in zip(files, digests, strict=True):
        check_published(path, digest)
    return tuple(sorted(digests if adapter is None else [*digests, adapter.scales_digest]))


def _tokenizer_digest(checkpoint: Checkpoint) -> str:
    """Of the tokenizer that its files make, and of the end token if embedlake adds it."""
    of_file = backend_digest(checkpoint.tokenizer_file, checkpoint.reading)
    if checkpoint.added_end is None or checkpoint.trailing_token != checkpoint.added_end:
        return of_file
    return hashlib.sha256(f"{of_file} {checkpoint.added_end}".encode()).hexdigest()


def _resolve_hashing(
    revision: str | None,
    dtype: str,
    dim: int | None,
    max_tokens: int | None,
    adapter: str | None,
) -> ResolvedModel:
    if adapter is not None:
        raise ModelError(f"'hashing' has no weights that adapter {adapter!r} could change")
    if revision is not None:
        raise ModelError(f"revision {revision!r} means nothing for 'hashing'; remove it")
    if dtype not in ("auto", "fp32"):
        raise ModelError(f"'hashing' computes in fp32 only, not {dtype}; use auto or fp32")
    return ResolvedModel(hashing.space(dim, max_tokens), dtype, checkpoint=None)


def _check_limits(
    name: str, checkpoint: Checkpoint, dim: int | None, max_tokens: int | None
) -> None:
    if dim is not None and dim > checkpoint.output_size:
        raise ModelError(
            f"dim {dim} is larger than the {checkpoint.output_size} values {name!r} gives; "
            f"use at most {checkpoint.output_size}"
        )
    if max_tokens is not None and max_tokens > checkpoint.position_limit:
        raise ModelError(
            f"max_tokens {max_tokens} is above the {checkpoint.position_limit} positions of "
            f"{name!r}; use at most {checkpoint.position_limit}"
        )
