"""A recipe's labelled queries: people's questions and the documents judged for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from embedding_core.errors import UsageError
from embedding_core.plurals import counted
from embedding_core.quality.beir import read_qrels, read_queries
from embedding_core.quality.metrics import has_relevant
from embedding_core.recipe import Recipe
from embedding_core.store import storage


@dataclass(frozen=True, slots=True)
class Labels:
    """Queries with at least one relevant document, and their grades."""

    texts: dict[str, str]
    """Texts by query id, in file order."""
    grades: dict[str, Mapping[str, int]]
    """Grades by query id and document id; a grade above 0 is relevant."""
    left_out: int
    """Queries without a relevant document."""

    @property
    def documents(self) -> set[str]:
        """Every judged document."""
        return {document for grades in self.grades.values() for document in grades}

    def among(self, documents: Collection[str]) -> Labels:
        """The labels that are left when only ``documents`` can be found."""
        left: dict[str, Mapping[str, int]] = {
            query: {document: grade for document, grade in grades.items() if document in documents}
            for query, grades in self.grades.items()
        }
        kept = {query: left[query] for query in left if has_relevant(left[query])}
        lost = len(self.texts) - len(kept)
        return Labels({query: self.texts[query] for query in kept}, kept, self.left_out + lost)


def read_labels(recipe: Recipe, queries: str | None = None, qrels: str | None = None) -> Labels:
    """Read both files; they default to the recipe's release section.

    Raises ``UsageError`` for missing, empty or malformed files, and when no query has a relevant
    document.
    """
    texts = read_queries(*_file(recipe, queries or recipe.release.queries, "queries"))
    grades = read_qrels(*_file(recipe, qrels or recipe.release.qrels, "qrels"))
    judged: dict[str, Mapping[str, int]] = {
        query: grades[query] for query in texts if has_relevant(grades.get(query, {}))
    }
    if not judged:
        raise UsageError(
            "no query has a relevant document in the qrels; check that their query ids are the "
            "same as in the queries file"
        )
    kept = {query: texts[query] for query in judged}
    return Labels(kept, judged, len(texts) - len(judged))


def queries_from(uri: str, recipe: Recipe) -> dict[str, str]:
    """Query texts by id, from JSON lines with ``_id`` and ``text``.

    Raises ``UsageError`` for a file that cannot be read or used.
    """
    return read_queries(labelled_bytes(uri, recipe, "queries"), uri)


def labelled_bytes(uri: str, recipe: Recipe, kind: str) -> bytes:
    """A file of queries or judgements. Raises ``UsageError`` when it cannot be read."""
    try:
        return storage.read_bytes(uri, recipe.source.storage)
    except FileNotFoundError as error:
        raise UsageError(
            f"no {kind} file at {uri}; correct the path, or release.{kind} in the recipe"
        ) from error
    except OSError as error:
        raise UsageError(f"cannot read the {kind} file {uri}: {error}") from error


def nothing_known(labels: Labels) -> UsageError:
    """The error for judgements that name no document of the rows."""
    documents = sorted(labels.documents)
    return UsageError(
        f"none of the {counted(len(documents), 'judged document')} is among the rows (the first is "
        f"{documents[0]!r}); judgements name documents by the ids of source.id"
    )


def _file(recipe: Recipe, uri: str | None, kind: str) -> tuple[bytes, str]:
    if uri is None:
        raise UsageError(
            f"no {kind} file: name it in the recipe as release.{kind}, or give it for this "
            "evaluation",
            action="evaluate",
        )
    return labelled_bytes(uri, recipe, kind), uri
