"""What a plan will cost: chunks and tokens of its files at the rate of a sample of their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from embedding_core.chunking import Chunker, chunk_document
from embedding_core.errors import SetupError, Transient
from embedding_core.pipeline.cutting import Cutting
from embedding_core.recipe import Recipe
from embedding_core.records import Document, PlannedFile, Reject, SourceFile
from embedding_core.sources import bytes_per_record, read_documents

SAMPLE_FILES = 3
SAMPLE_RECORDS = 100
"""Per sampled file; 300 documents tell tokens per byte to a few percent on even corpora."""
SAMPLE_CHARACTERS = 200_000
"""Of one document at most: a longer one says no more, and a plan must not wait for it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of the files that have to be embedded; texts whose vectors are kept make it less."""

    chunks: int
    tokens: int


def estimate(files: Sequence[PlannedFile], recipe: Recipe, cutting: Cutting) -> Estimate:
    """Chunks and tokens of all files at the rate of a sample spread over them."""
    files = [one for one in files if one.file.size_bytes]
    if not files:
        return Estimate(0, 0)
    sampler = _Sampler(recipe, cutting, cutting.chunker())
    step = max(1, len(files) // SAMPLE_FILES)
    samples = [sampler.sample(one.file) for one in files[::step][:SAMPLE_FILES]]
    n_bytes = sum(sample.n_bytes for sample in samples)
    if not n_bytes:
        return Estimate(0, 0)
    scale = sum(one.file.size_bytes for one in files) / n_bytes
    return Estimate(
        chunks=round(scale * sum(sample.chunks for sample in samples)),
        tokens=round(scale * sum(sample.tokens for sample in samples)),
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    chunks: int
    tokens: int
    n_bytes: float
    """Stored bytes that these are of."""


@dataclass(frozen=True, slots=True)
class _Sampler:
    recipe: Recipe
    cutting: Cutting
    chunker: Chunker

    def sample(self, file: SourceFile) -> _Sample:
        """What the file's first records give; nothing for a file that is bad or breaks the code,
        which the run itself finds and lists."""
        try:
            return self._first_records(file)
        except (Transient, SetupError):
            raise
        except Exception:
            return _Sample(0, 0, file.size_bytes)

    def _first_records(self, file: SourceFile) -> _Sample:
        records = list(islice(read_documents(file, self.recipe.source), SAMPLE_RECORDS))
        n_bytes = self._stored_bytes(file, records)
        texts = [one.text for one in records if isinstance(one, Document)]
        n_characters = sum(map(len, texts))
        cut = [text[:SAMPLE_CHARACTERS] for text in texts]
        share = sum(map(len, cut)) / n_characters if n_characters else 1.0
        limit = self.cutting.limit
        chunks = [
            chunk
            for text in cut
            for chunk in chunk_document(
                text,
                self.chunker,
                self.recipe.model.over_length,
                self.cutting.tokenizer,
                limit,
            ).kept
        ]
        return _Sample(
            len(chunks), sum(min(chunk.n_tokens, limit) for chunk in chunks), n_bytes * share
        )

    def _stored_bytes(self, file: SourceFile, records: Sequence[Document | Reject]) -> float:
        """Bytes of the file that its first records take; all of it when there are no others."""
        if len(records) < SAMPLE_RECORDS:
            return file.size_bytes
        each = bytes_per_record(file, self.recipe.source)
        last = records[-1].position
        if each is None or last is None:
            return file.size_bytes
        return min(file.size_bytes, each * (last + 1))
