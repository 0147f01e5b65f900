"""What feedback says of a document as the answer to a query: grades, as people's labels have them.

A thumb says more than a click, and people more than one person: thumbs of a session count by its
last word, and its clicks on a document once. Knows rows of feedback alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from embedding_core.lake.readers.feedback import Feedback, Signal
from embedding_core.quality.held_out import plain

RELEVANT, CLICKED, IRRELEVANT = 2, 1, 0
"""Grades."""


@dataclass(frozen=True, slots=True)
class GradedQuery:
    """A query with what people said of its documents."""

    text: str
    """The words as they were first written."""
    grades: Mapping[str, int]
    """Grades by document."""
    origins: Mapping[str, Origin]
    """Where each document came from."""

    @property
    def is_answered(self) -> bool:
        """Whether a document is relevant."""
        return any(grade > IRRELEVANT for grade in self.grades.values())


@dataclass(slots=True)
class Origin:
    """The file of a document, and the passages of it that were relevant or clicked."""

    source_uri: str | None = None
    chunk_ids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Opinions:
    """What was said of a document as the answer to a query."""

    thumbs: dict[str, Signal] = field(default_factory=dict)
    """The last thumb of each session."""
    clicks: set[str] = field(default_factory=set)
    """Sessions that opened it."""
    origin: Origin = field(default_factory=Origin)

    def add(self, feedback: Feedback, voter: str) -> None:
        if feedback.signal == "click":
            self.clicks.add(voter)
        else:
            self.thumbs[voter] = feedback.signal
        self.origin.source_uri = feedback.source_uri or self.origin.source_uri
        if feedback.chunk_id is not None and feedback.signal != "irrelevant":
            self.origin.chunk_ids.add(feedback.chunk_id)

    def grade(self, min_clicks: int) -> int | None:
        """None where nothing is said: thumbs even each other out, or there are few clicks."""
        votes = sum(1 if thumb == "relevant" else -1 for thumb in self.thumbs.values())
        if votes:
            return RELEVANT if votes > 0 else IRRELEVANT
        return CLICKED if len(self.clicks) >= min_clicks else None


def graded_queries(feedback: Iterable[Feedback], min_clicks: int = 1) -> Iterator[GradedQuery]:
    """A line for each query that something is said of; queries with the same words are the same.

    ``feedback`` is in the order it came. ``min_clicks``: sessions that must have opened a document
    without a thumb. Memory grows with pairs of a query and a document.
    """
    texts: dict[str, str] = {}
    opinions: dict[str, dict[str, _Opinions]] = defaultdict(lambda: defaultdict(_Opinions))
    for number, row in enumerate(feedback):
        words = plain(row.query)
        texts.setdefault(words, " ".join(row.query.split()))
        voter = row.session or f"row {number}"
        opinions[words][row.doc_id].add(row, voter)
    for words, by_document in opinions.items():
        grades = {
            document: grade
            for document, said_of in by_document.items()
            if (grade := said_of.grade(min_clicks)) is not None
        }
        if grades:
            origins = {document: by_document[document].origin for document in grades}
            yield GradedQuery(texts[words], grades, origins)
