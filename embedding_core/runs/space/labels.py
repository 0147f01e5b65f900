"""Former home of ``quality.labels``, until every room imports from there."""

from embedding_core.quality.labels import Labels, nothing_known, read_labels

__all__ = ["Labels", "nothing_known", "read_labels"]
