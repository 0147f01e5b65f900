"""How a recipe chooses, and what of it decides what a survey reads."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from embedding_core.identity import digest
from embedding_core.recipe import SampleSpec, SourceSpec

SURVEY_VERSION = 1
"""Goes up when the same file gives other candidates."""
IDENTITY_BYTES = 8
"""Length of a candidate's identity: ids of one file alone have to differ."""
CUTTING_RULES = frozenset(["chunk", "tokenizer", "length_limit", "prompt", "over_length"])
"""Row rules that change chunks, and no document."""


@dataclass(frozen=True, slots=True)
class Choosing:
    """The choice that a recipe asks for: no duplicates first, of the rest a sample, of that the
    limit."""

    deduplicate: bool
    sample: SampleSpec | None
    limit: int | None

    @classmethod
    def of(cls, source: SourceSpec) -> Choosing | None:
        """The choice of a source; None where every document is taken."""
        is_choice = source.deduplicate or source.sample or source.limit
        return cls.asked_by(source) if is_choice else None

    @classmethod
    def asked_by(cls, source: SourceSpec) -> Choosing:
        """The choice of a source, also where that takes every document."""
        return cls(source.deduplicate, source.sample, source.limit)

    @property
    def stops_early(self) -> bool:
        """Whether files behind the last document of the limit need not be read: no sample needs
        them."""
        return self.limit is not None and self.sample is None

    @property
    def most_of_a_file(self) -> int | None:
        """Documents that are read of a file at most; None: all. Those with a text of another file
        do not count towards a limit, so all are read where duplicates are left out."""
        return self.limit if self.stops_early and not self.deduplicate else None

    @property
    def most_of_a_group(self) -> int | None:
        """Candidates of a group that a file can need; None: all, where others may be duplicates."""
        return None if self.sample is None or self.deduplicate else self.sample.rows

    @property
    def key(self) -> bytes:
        """The key of identities: another seed, or another field to group by, is another sample."""
        sample = self.sample
        return digest(None if sample is None else [sample.seed, sample.per]).encode()

    def survey_id(self, rules: Mapping[str, Any]) -> str:
        """Digest of everything that decides the candidates of a file, its content left aside."""
        reading = {name: rule for name, rule in rules.items() if name not in CUTTING_RULES}
        bounds = [self.most_of_a_file, self.most_of_a_group, self.sample and self.sample.top]
        return digest([SURVEY_VERSION, reading, self.key.decode(), self.deduplicate, bounds])

    def described(self) -> dict[str, Any]:
        """The choice as plain values."""
        return asdict(self) | {"sample": self.sample.model_dump() if self.sample else None}


class Identities:
    """Identities of the documents of one file: the same for the same ids under the same path.

    A path is relative to the source, so that a mount of another name changes nothing. Where a
    sample has a seed, documents are taken in the order of their identities.
    """

    def __init__(self, key: bytes, path: str) -> None:
        self._of_path = hashlib.blake2b(digest_size=IDENTITY_BYTES, key=key)
        self._of_path.update(path.encode("utf-8", "surrogatepass") + b"\0")

    def of(self, doc_id: str) -> int:
        """The identity of a document, 64 bits."""
        hashed = self._of_path.copy()
        hashed.update(doc_id.encode())
        return int.from_bytes(hashed.digest(), "little")


def path_below(source_uri: str, file_uri: str) -> str:
    """The path of a file below the source; its whole URI where that is not below the source's."""
    root = source_uri.removeprefix("file://").rstrip("/")
    if file_uri == root:
        return file_uri.rpartition("/")[2]
    return file_uri.removeprefix(f"{root}/")
