"""Estimate from a sample of records what a plan costs and whether its files can be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from embedding_core.chunking import Chunker, chunk_document
from embedding_core.errors import RejectedInput, SetupError, Transient, words
from embedding_core.plurals import counted
from embedding_core.reasons import CHOSEN
from embedding_core.recipe import Recipe
from embedding_core.records import Document, PlannedFile, Reject, SourceFile
from embedding_core.runs.choosing.rules import Choosing
from embedding_core.runs.choosing.state import UNSURVEYED
from embedding_core.runs.cutting import Cutting
from embedding_core.sources import bytes_per_record, read_documents

SAMPLE_FILES = 3
SAMPLE_RECORDS = 100
"""Per sampled file; 300 documents tell tokens per byte to a few percent on even corpora."""
SAMPLE_CHARACTERS = 200_000
"""Most characters that are read of one document: a longer one says no more, and a plan must not
wait for it."""
STARTING_SECONDS = 10.0
"""Starting Ray and loading a small model on two cores; a run on Ray takes at least this long."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The work of the files to embed; less where the table has vectors of their texts."""

    chunks: int | None
    """None where no record was read."""
    tokens: int | None
    problems: tuple[str, ...]
    """What is wrong with the sampled records, a sentence each."""
    nothing_usable: bool = False
    """Whether every sampled record was rejected."""

    def seconds(self, tokens_per_second: float) -> float | None:
        """Time for the tokens; None where no record was read."""
        return None if self.tokens is None else self.tokens / tokens_per_second


NOTHING_SAMPLED = Estimate(None, None, ())


@dataclass(frozen=True, slots=True)
class SampledFile:
    """The first records of a file."""

    file: SourceFile
    documents: tuple[Document, ...]
    rejects: tuple[Reject, ...]
    problem: str | None
    """Why the file cannot be read at all."""

    @property
    def n_records(self) -> int:
        """Records read, good or not."""
        return len(self.documents) + len(self.rejects)


def estimate(files: Sequence[PlannedFile], recipe: Recipe, cutting: Cutting) -> Estimate:
    """Chunks and tokens of all files at the rate of a sample spread over them."""
    sampled = sampled_files([file.file for file in files], recipe)
    problems = list(sample_problems(sampled, recipe))
    counter = _Counter(recipe, cutting, cutting.chunker())
    shares = []
    for sample in sampled:
        try:
            shares.append(counter.count(sample))
        except (Transient, SetupError):
            raise
        except Exception as error:  # noqa: BLE001  the run finds it too, and lists the file
            problems.append(f"{sample.file.uri}: cutting it broke off with {_kind(error)}")
    n_bytes = sum(share.n_bytes for share in shares)
    if not n_bytes:
        return Estimate(0, 0, tuple(problems), _nothing_usable(sampled))
    scale = sum(file.file.size_bytes for file in files) / n_bytes
    scale *= _chosen_share(files, sampled, scale * sum(share.documents for share in shares), recipe)
    return Estimate(
        chunks=round(scale * sum(share.chunks for share in shares)),
        tokens=round(scale * sum(share.tokens for share in shares)),
        problems=tuple(problems),
        nothing_usable=_nothing_usable(sampled),
    )


def _chosen_share(
    files: Sequence[PlannedFile],
    sampled: Sequence[SampledFile],
    n_documents: float,
    recipe: Recipe,
) -> float:
    """Share of the documents that the recipe takes: as the choice says; before it is settled, what
    the recipe's numbers allow, of as many groups as the sampled records have."""
    source = recipe.source
    if Choosing.of(source) is None or not n_documents:
        return 1.0
    of_files = [file.choice for file in files if file.choice is not None]
    if len(of_files) == len(files) and UNSURVEYED not in of_files:
        return sum(choice.chosen for choice in of_files) / n_documents
    groups = {document.group for sample in sampled for document in sample.documents}
    n_chosen = n_documents
    if source.sample is not None:
        n_chosen = min(n_chosen, source.sample.rows * len(groups))
    return min(n_chosen, source.limit or n_chosen) / n_documents


def sampled_files(files: Sequence[SourceFile], recipe: Recipe) -> list[SampledFile]:
    """The first records of some files, spread evenly over those that hold something, and one that
    is empty."""
    holding = [file for file in files if file.size_bytes]
    empty = [file for file in files if not file.size_bytes][:1]  # not every format may be empty
    step = max(1, len(holding) // SAMPLE_FILES)
    return [_first_records(file, recipe) for file in [*holding[::step][:SAMPLE_FILES], *empty]]


def sample_problems(sampled: Sequence[SampledFile], recipe: Recipe) -> tuple[str, ...]:
    """What a run over these files would stumble on: files that cannot be read, and more rejected
    records than the recipe tolerates, with the most frequent reason."""
    problems = [
        f"{sample.file.uri}: {sample.problem}" for sample in sampled if sample.problem is not None
    ]
    rejects = [reject for sample in sampled for reject in sample.rejects]
    if not _nothing_usable(sampled):
        rejects = [reject for reject in rejects if reject.reason not in CHOSEN]
    n_records = sum(sample.n_records for sample in sampled)
    if len(rejects) > recipe.max_rejected_share * n_records:
        ((reason, _),) = Counter(reject.reason for reject in rejects).most_common(1)
        example = next(reject for reject in rejects if reject.reason == reason)
        problems.append(
            f"of {counted(n_records, 'sampled record')} {len(rejects):,} rejected: {reason}: "
            f"{example.detail}"
        )
    return tuple(problems)


def _nothing_usable(sampled: Sequence[SampledFile]) -> bool:
    n_rejects = sum(len(sample.rejects) for sample in sampled)
    return 0 < n_rejects == sum(sample.n_records for sample in sampled)


def _first_records(file: SourceFile, recipe: Recipe) -> SampledFile:
    try:
        records = list(islice(read_documents(file, recipe.source), SAMPLE_RECORDS))
    except (Transient, SetupError):
        raise
    except RejectedInput as error:
        return SampledFile(file, (), (), str(error))
    except Exception as error:  # noqa: BLE001  the run finds it too, and lists the file
        return SampledFile(file, (), (), f"reading it broke off with {_kind(error)}")
    documents = tuple(record for record in records if isinstance(record, Document))
    rejects = tuple(record for record in records if isinstance(record, Reject))
    return SampledFile(file, documents, rejects, None)


def _kind(error: Exception) -> str:
    return f"{type(error).__name__}: {words(error)}"


@dataclass(frozen=True, slots=True)
class _Share:
    documents: float
    chunks: int
    tokens: int
    n_bytes: float
    """Stored bytes that these are of."""


@dataclass(frozen=True, slots=True)
class _Counter:
    recipe: Recipe
    cutting: Cutting
    chunker: Chunker

    def count(self, sampled: SampledFile) -> _Share:
        """Chunks and tokens of the sampled records; none of a file that cannot be read."""
        n_characters = sum(len(document.text) for document in sampled.documents)
        read = [
            replace(document, text=document.text[:SAMPLE_CHARACTERS])
            for document in sampled.documents
        ]
        n_read = sum(len(document.text) for document in read)
        share = n_read / n_characters if n_characters else 1.0
        limit = self.cutting.limit
        chunks = [
            chunk
            for document in read
            for chunk in chunk_document(
                document,
                self.chunker,
                self.recipe.model.over_length,
                self.cutting.tokenizer,
                limit,
            ).kept
        ]
        tokens = sum(min(chunk.n_tokens, limit) for chunk in chunks)
        n_documents = len(sampled.documents) * share
        return _Share(n_documents, len(chunks), tokens, self._stored_bytes(sampled) * share)

    def _stored_bytes(self, sampled: SampledFile) -> float:
        """Bytes of the file that its first records take; all of it when there are no others."""
        file = sampled.file
        if sampled.n_records < SAMPLE_RECORDS:
            return file.size_bytes
        each = bytes_per_record(file, self.recipe.source)
        positions = [document.position for document in sampled.documents]
        positions += [reject.position for reject in sampled.rejects if reject.position is not None]
        last = max(positions, default=None)
        if each is None or last is None:
            return file.size_bytes
        return min(file.size_bytes, each * (last + 1))
