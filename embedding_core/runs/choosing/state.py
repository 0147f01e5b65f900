"""What is known of the choice of a source before a run surveys it, and what is kept of it after."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from embedding_core.identity import digest
from embedding_core.lake.rows.choices import StoredChoice, read_choice, write_choice
from embedding_core.lake.table import Table
from embedding_core.recipe import SourceSpec
from embedding_core.records import Choice, ChoiceSummary, SourceFile
from embedding_core.runs.choosing.candidates import BEYOND, CANDIDATE
from embedding_core.runs.choosing.choice import NOTHING, choices, chosen
from embedding_core.runs.choosing.rules import Choosing, path_below
from embedding_core.runs.choosing.survey import (
    SURVEY_SCHEMA,
    FileSurvey,
    from_batches,
    to_batch,
)
from embedding_core.sources import Discovery

CHOICE_SCHEMA = pa.schema(
    [
        pa.field("digest", pa.string(), nullable=False),
        pa.field("chosen_ordinals", pa.large_binary()),
        pa.field("duplicate_ordinals", pa.large_binary(), nullable=False),
        pa.field("end", pa.int64()),
        pa.field("is_read", pa.bool_(), nullable=False),
        pa.field("chosen", pa.int64(), nullable=False),
        pa.field("duplicates", pa.int64(), nullable=False),
        pa.field("left_out", pa.int64(), nullable=False),
    ]
)
SURVEYED_BY, CHOSEN_FROM = "embedlake:surveyed_by", "embedlake:chosen_from"
"""Metadata of what is kept: digests of how files were surveyed, and of the files and the recipe's
choice."""

UNSURVEYED = Choice(digest="unsurveyed", chosen_ordinals=b"")
"""Stands for the choice of a file that a run surveys first."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What is known of the choice of a source's documents, by the files' URIs."""

    choosing: Choosing | None = None
    """None where every document is taken."""
    by_uri: Mapping[str, Choice] | None = None
    """Choices of the files that were surveyed."""
    to_survey: tuple[SourceFile, ...] = ()
    """Files that a run surveys before it is certain what is taken; those of ``beyond`` may follow.
    """
    beyond: frozenset[str] = frozenset()
    """Files that are not read, because the limit is reached before."""
    is_kept: bool = False
    """Whether this very choice is kept with the lake: a run need not settle it."""

    def of(self, uri: str) -> Choice | None:
        """The choice of a file; None where every document is taken."""
        if self.choosing is None or self.by_uri is None:
            return None
        return NOTHING if uri in self.beyond else self.by_uri.get(uri, UNSURVEYED)

    @property
    def summary(self) -> ChoiceSummary | None:
        """The choice in numbers."""
        if self.choosing is None or self.by_uri is None:
            return None
        of_files = self.by_uri.values()
        return ChoiceSummary(
            files_to_survey=len(self.to_survey),
            bytes_to_survey=sum(file.size_bytes for file in self.to_survey),
            chosen=sum(choice.chosen for choice in of_files),
            duplicates=sum(choice.duplicates for choice in of_files),
            left_out=sum(choice.left_out for choice in of_files),
            files_beyond=len(self.beyond),
        )


ALL = Choices(is_kept=True)
"""Every document is taken."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source as a choice sees them."""

    source: SourceSpec
    files: Mapping[str, SourceFile]
    """The files by their paths below the source, sorted."""
    unreadable: Mapping[str, str]
    """URIs of files that nobody can read now, by path: what was chosen of them stays."""
    choosing: Choosing
    survey_id: str

    @classmethod
    def of(
        cls, source: SourceSpec, listed: Discovery, choosing: Choosing, rules: Mapping[str, Any]
    ) -> Listing:
        """The files of ``listed``."""
        files = {path_below(source.uri, file.uri): file for file in listed.files}
        unreadable = (reject.source_uri for reject in listed.unreadable)
        return cls(
            source,
            {path: files[path] for path in sorted(files)},
            {path_below(source.uri, uri): uri for uri in unreadable},
            choosing,
            choosing.survey_id(rules),
        )

    @property
    def choice_id(self) -> str:
        """Digest of everything that decides the choice, the last one left aside."""
        versions = [[path, file.fingerprint] for path, file in self.files.items()]
        return digest(
            [self.survey_id, self.choosing.described(), versions, sorted(self.unreadable)]
        )

    def is_usable(self, survey: FileSurvey, surveyed_by: str) -> bool:
        """Whether a survey that was kept says what a new one would."""
        if survey.path in self.unreadable:
            return True
        file = self.files.get(survey.path)
        is_same = file is not None and file.fingerprint == survey.fingerprint
        return is_same and surveyed_by == self.survey_id and not survey.is_to_repeat

    def uri(self, path: str) -> str:
        """The URI of a path, also of a file that nobody can read."""
        return self.files[path].uri if path in self.files else self.unreadable[path]


def known_choices(
    table: Table, source: SourceSpec, listed: Discovery, rules: Mapping[str, Any]
) -> Choices:
    """What is known of the choice without reading a file of the source."""
    choosing = Choosing.of(source)
    if choosing is None:
        return ALL
    listing = Listing.of(source, listed, choosing, rules)
    columns = [field for field in (*SURVEY_SCHEMA, *CHOICE_SCHEMA) if field.name != "candidates"]
    stored = read_choice(table, pa.schema(columns))
    if stored is None:
        return unsurveyed(listing, {}, {})
    kept = _kept(stored)
    if stored.metadata.get(CHOSEN_FROM) == listing.choice_id and not any(
        survey.is_to_repeat for survey in kept.surveys.values()
    ):
        return replace(settled_choices(listing, kept.choices), is_kept=True)
    surveyed_by = stored.metadata.get(SURVEYED_BY, "")
    usable = {
        path: survey
        for path, survey in kept.surveys.items()
        if listing.is_usable(survey, surveyed_by)
    }
    if to_survey(listing, usable, kept.choices):
        return unsurveyed(listing, usable, kept.choices)
    # Nothing has to be read: files left the source, or the recipe chooses otherwise.
    surveys = [survey for survey in last_surveys(table).surveys if survey.path in usable]
    return settled_choices(listing, reached_choices(chosen(surveys, choosing), choosing))


def to_survey(
    listing: Listing, usable: Collection[str], last: Mapping[str, Choice]
) -> list[SourceFile]:
    """Files that have to be read to choose, in order; more may follow where a limit stops early.

    ``usable``: paths with a survey that holds; ``last``: what was chosen of files the last time.
    """
    missing = {path: file for path, file in listing.files.items() if path not in usable}
    if not listing.choosing.stops_early or listing.choosing.limit is None:
        return list(missing.values())
    # Documents that were taken may still be there: their files are read first.
    changed = [path for path in missing if path in last and last[path].chosen]
    expected = sum(last[path].chosen for path in (*usable, *changed) if path in last)
    if expected >= listing.choosing.limit:
        return [missing[path] for path in changed]
    return list(missing.values())


def unsurveyed(listing: Listing, usable: Collection[str], last: Mapping[str, Choice]) -> Choices:
    """What is known while files have to be surveyed: the last choice of those that hold."""
    first = tuple(to_survey(listing, usable, last))
    by_uri = {listing.uri(path): last[path] for path in usable if path in last}
    reached = {file.uri for file in first} | by_uri.keys()
    beyond = frozenset(file.uri for file in listing.files.values() if file.uri not in reached)
    return Choices(listing.choosing, by_uri, first, beyond)


def settled_choices(listing: Listing, by_path: Mapping[str, Choice]) -> Choices:
    """The choice of a source, once nothing has to be surveyed."""
    by_uri = {listing.uri(path): choice for path, choice in by_path.items()}
    beyond = frozenset(file.uri for file in listing.files.values() if file.uri not in by_uri)
    return Choices(listing.choosing, by_uri, (), beyond)


@dataclass(frozen=True, slots=True)
class Kept:
    """Surveys and choices by path."""

    surveys: Mapping[str, FileSurvey]
    choices: Mapping[str, Choice]


def _kept(stored: StoredChoice) -> Kept:
    """What is kept, without the candidates."""
    names = [name for name in SURVEY_SCHEMA.names if name != "candidates"]
    surveys = [
        FileSurvey(**row, candidates=np.zeros(0, CANDIDATE))
        for row in stored.files.select(names).to_pylist()
    ]
    choices = [Choice(**row) for row in stored.files.select(CHOICE_SCHEMA.names).to_pylist()]
    paths = [survey.path for survey in surveys]
    return Kept(dict(zip(paths, surveys, strict=True)), dict(zip(paths, choices, strict=True)))


@dataclass(frozen=True, slots=True)
class LastSurveys:
    """The surveys that are kept, with their candidates and how far these came."""

    surveyed_by: str = ""
    surveys: tuple[FileSurvey, ...] = ()


def last_surveys(table: Table) -> LastSurveys:
    """The surveys that are kept with the lake."""
    stored = read_choice(table, SURVEY_SCHEMA)
    if stored is None:
        return LastSurveys()
    surveys = from_batches(stored.files.to_batches())
    return LastSurveys(stored.metadata.get(SURVEYED_BY, ""), tuple(surveys))


def keep(table: Table, listing: Listing, surveys: Sequence[FileSurvey]) -> dict[str, Choice]:
    """Keep surveys that ``chosen`` gave with the lake; the choices, by path.

    Not those behind a limit: a later choice must not find them surveyed and files before them not.
    """
    by_path = reached_choices(surveys, listing.choosing)
    surveys = [survey for survey in surveys if survey.path in by_path]
    metadata = {
        SURVEYED_BY: listing.survey_id,
        CHOSEN_FROM: listing.choice_id,
        "embedlake:choice": json.dumps(listing.choosing.described()),
    }
    files = pa.Table.from_batches(map(to_batch, surveys), SURVEY_SCHEMA)
    for field in CHOICE_SCHEMA:
        values = [getattr(choice, field.name) for choice in by_path.values()]
        files = files.append_column(field, pa.array(values, field.type))
    write_choice(table, StoredChoice(files, metadata))
    return by_path


def reached_choices(surveys: Sequence[FileSurvey], choosing: Choosing) -> dict[str, Choice]:
    """The choice of each of the files that ``chosen`` gave, by path, those behind a limit left
    aside."""
    paths = [survey.path for survey in surveys]
    by_path = zip(paths, choices(surveys, choosing), strict=True)
    return {path: choice for path, choice in by_path if choice != NOTHING}


def members(surveys: Iterable[FileSurvey]) -> dict[str, bytes]:
    """Identities of the documents that passed the sample the last time, by path."""
    return {
        survey.path: survey.candidates["identity"][survey.candidates["stage"] >= BEYOND]
        .astype("<u8")
        .tobytes()
        for survey in surveys
    }


def with_last_stages(survey: FileSurvey, last: FileSurvey | None) -> FileSurvey:
    """The survey of a changed file, whose documents come as far as the last time."""
    if last is None or not len(last.candidates):
        return survey
    rows = survey.candidates.copy()
    order = np.argsort(last.candidates["identity"], kind="stable")
    identities = last.candidates["identity"][order]
    index = np.minimum(np.searchsorted(identities, rows["identity"]), len(identities) - 1)
    is_there = identities[index] == rows["identity"]
    rows["stage"][is_there] = last.candidates["stage"][order][index[is_there]]
    return replace(survey, candidates=rows)
