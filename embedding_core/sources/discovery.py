"""Discovery: the files of a source, sorted, each with the fingerprint of its content."""

from __future__ import annotations

from dataclasses import dataclass

from embedding_core.errors import SetupError
from embedding_core.plurals import counted
from embedding_core.recipe import SourceSpec
from embedding_core.recipe.formats import KNOWN_FORMATS
from embedding_core.records import PassedOver, Reject, SourceFile
from embedding_core.sources.formats.recognition import readable_names
from embedding_core.sources.selection import Selection
from embedding_core.store.places import place_of


@dataclass(frozen=True, slots=True)
class Discovery:
    """The files that a source holds now."""

    files: tuple[SourceFile, ...]
    """Readable files, sorted by URI."""
    unreadable: tuple[Reject, ...]
    """Files that exist but cannot be read, sorted by URI. A run goes on without them and keeps
    their rows, because they were not removed from the source."""
    passed_over: PassedOver
    """Counts of the other names."""


def discover(spec: SourceSpec, may_be_empty: bool = False) -> Discovery:
    """List the files of a source that its globs choose.

    A source that is a single file is that file, whatever the globs say. Raises ``SetupError`` when
    the source is missing, holds no such file (unless it ``may_be_empty``), or a folder in it cannot
    be listed (its files would look removed), ``UsageError`` when the function of ``source.map``
    cannot be loaded, and ``Transient`` when a store does not answer.
    """
    if spec.map is not None:
        spec.map.load()  # what cannot be imported must not wait for the first record
    selection = Selection.of(spec)
    entries = list(place_of(spec.uri).list(spec.uri, spec.storage, selection))
    files = [entry for entry in entries if isinstance(entry, SourceFile)]
    unreadable = [entry for entry in entries if isinstance(entry, Reject)]
    if not may_be_empty and not entries:
        problems = [*filter(None, [selection.subset.why_empty()]), *KNOWN_FORMATS.problems()]
        chosen = spec.include or (("**/*",) if spec.format else (readable_names(),))
        raise SetupError(
            f"nothing to read in {spec.uri}: no file matches {', '.join(chosen)} "
            f"({_others(selection.passed_over)}); "
            + "; ".join(["correct source.uri, source.include or source.exclude", *problems])
        )
    return Discovery(
        tuple(sorted(files, key=lambda file: file.uri)),
        tuple(sorted(unreadable, key=lambda reject: reject.source_uri)),
        selection.passed_over,
    )


def _others(passed_over: PassedOver) -> str:
    return (
        f"passed over: {counted(passed_over.hidden, 'name begins', 'names begin')} with _ or ., "
        f"{passed_over.excluded} excluded, {counted(passed_over.unmatched, 'other file')}"
    )
