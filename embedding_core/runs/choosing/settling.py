"""Settle a choice: survey the files that have to be read, choose, and keep what was chosen.

What was chosen is kept before anything is cut. A run that is cut off after that finds the choice
settled, and the table tells which files still have to follow it.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol, TypeAlias, TypeVar

from embedding_core.errors import SetupError, Transient, words
from embedding_core.lake import staging
from embedding_core.plurals import counted
from embedding_core.records import SourceFile, SurveyUnit
from embedding_core.runs.choosing.candidates import TAKEN
from embedding_core.runs.choosing.choice import chosen, n_taken
from embedding_core.runs.choosing.rules import Choosing
from embedding_core.runs.choosing.state import (
    Choices,
    Listing,
    keep,
    last_surveys,
    members,
    settled_choices,
    with_last_stages,
)
from embedding_core.runs.choosing.survey import (
    FileSurvey,
    failed_survey,
    halves,
    joined_survey,
    read_survey,
    staged_survey,
    survey_unit,
    survey_units,
)
from embedding_core.runs.job import Job
from embedding_core.sources import Discovery

Log: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"

IN_FLIGHT = 32
"""Units that are surveyed at a time: Ray hangs with thousands of pending tasks."""
SPEAK_SECONDS = 30.0
"""A survey that goes on for longer says how far it is."""


class SubmittedSurvey(Protocol):
    """A unit that is being surveyed."""

    @property
    def unit(self) -> SurveyUnit: ...


SubmittedT = TypeVar("SubmittedT", bound=SubmittedSurvey)


class SurveyRunner(Protocol[SubmittedT]):
    """Surveys units of one job by ``survey_unit``."""

    def submit(self, units: Sequence[SurveyUnit]) -> list[SubmittedT]:
        """Begin some units."""
        ...

    def has_ended(self, submitted: SubmittedT, seconds: float) -> bool:
        """Whether a unit has ended, waiting for so long at most."""
        ...

    def result(self, submitted: SubmittedT) -> str | BaseException:
        """The URI of what was staged, or the error; raises what would hit every other unit too."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class BegunSurvey:
    """A unit that is surveyed when its result is asked for."""

    unit: SurveyUnit


@dataclass(frozen=True, slots=True)
class SurveyInProcess:
    """A ``SurveyRunner`` in this process, one unit after the other."""

    job: Job

    def submit(self, units: Sequence[SurveyUnit]) -> list[BegunSurvey]:
        """See ``SurveyRunner``."""
        return list(map(BegunSurvey, units))

    def has_ended(self, submitted: BegunSurvey, seconds: float) -> bool:
        """See ``SurveyRunner``."""
        return True

    def result(self, submitted: BegunSurvey) -> str | BaseException:
        """See ``SurveyRunner``."""
        try:
            return survey_unit(self.job, submitted.unit)
        except SetupError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the unit that failed
            return error


@dataclass(frozen=True, slots=True)
class Settlement:
    """A choice that is being settled."""

    job: Job
    listing: Listing
    runner: SurveyRunner[Any]
    log: Log
    unit_ids: set[str] = field(default_factory=set)
    """Units whose surveys are staged."""

    def settle(self) -> Choices:
        """Survey what has to be read, choose, and keep the choice.

        Raises ``Transient`` when a store fails: what was staged is not surveyed again.
        """
        listing, table = self.listing, self.job.table
        choosing = listing.choosing
        # 1. Surveys that still hold, and what the last choice says of files that changed.
        last = last_surveys(table)
        surveys = {
            survey.path: survey
            for survey in last.surveys
            if listing.is_usable(survey, last.surveyed_by)
        }
        old = {survey.path: survey for survey in last.surveys if survey.path not in surveys}
        # 2. Where a limit stops early, only files with chosen documents have to be read again;
        #    files follow in their order until the limit is reached.
        must = [
            file
            for path, file in listing.files.items()
            if path not in surveys
            and (not choosing.stops_early or (path in old and n_taken([old[path]])))
        ]
        surveys |= self._surveyed(must, old)
        rows = chosen(list(surveys.values()), choosing)
        n_files = 1
        while files := self._more(surveys, rows, n_files):
            surveys |= self._surveyed(files, old)
            rows = chosen(list(surveys.values()), choosing)
            n_files *= 2
        # 3. The choice is kept before anything is cut.
        by_path = keep(table, listing, rows)
        staging.drop_staged(table, self.unit_ids)
        return replace(settled_choices(listing, by_path), is_kept=True)

    def _more(
        self, surveys: Mapping[str, FileSurvey], rows: Sequence[FileSurvey], n_files: int
    ) -> list[SourceFile]:
        """The next files that a limit which stops early needs, ``n_files`` at most; none when it is
        reached and no file before a document that came in is unread."""
        choosing, files = self.listing.choosing, self.listing.files
        left = [path for path in files if path not in surveys]
        if choosing.limit is None or not choosing.stops_early:
            return []
        if lacking := choosing.limit - n_taken(rows):
            per_file = max(1.0, n_taken(rows) / max(1, len(surveys)))
            n_files = min(n_files, math.ceil(lacking / per_file))
        else:
            last = max((row.path for row in rows if _comes_in(surveys[row.path], row)), default="")
            left = [path for path in left if path < last]
        return [files[path] for path in left[:n_files]]

    def _surveyed(
        self, files: Sequence[SourceFile], old: Mapping[str, FileSurvey]
    ) -> dict[str, FileSurvey]:
        """The surveys of some files, by path; documents come as far as the last time."""
        if not files:
            return {}
        listing, job = self.listing, self.job
        by_uri = {file.uri: file for file in files}
        ids = members(old.values())
        units = list(survey_units(files, job, listing.choosing, listing.survey_id, ids))
        self.log.info(
            "to choose documents, %s surveyed (%s) in %s",
            counted(len(files), "file is", "files are"),
            counted(sum(file.size_bytes for file in files), "byte"),
            counted(len(units), "unit"),
        )
        surveys: dict[str, FileSurvey] = {}
        slices = defaultdict[str, list[FileSurvey]](list)
        for unit, results in self._results(units):
            self.unit_ids.add(unit.unit_id)
            for survey in results:
                if unit.slice is None:
                    surveys[survey.path] = survey
                else:
                    slices[unit.files[0].uri].append(survey)
        for uri, portions in slices.items():
            path = portions[0].path
            surveys[path] = joined_survey(
                portions, listing.choosing, ids.get(path, b""), by_uri[uri], job
            )
        return {path: with_last_stages(survey, old.get(path)) for path, survey in surveys.items()}

    def _results(
        self, units: Sequence[SurveyUnit], failed_before: bool = False
    ) -> Iterator[tuple[SurveyUnit, list[FileSurvey]]]:
        """The units in their order with their surveys; a unit that fails is taken apart, down to
        the file that it fails for."""
        table = self.job.table
        waiting, in_flight = iter(units), deque[tuple[SurveyUnit, Any]]()
        n_ended = 0
        while True:
            for unit in islice(waiting, IN_FLIGHT - len(in_flight)):
                is_there = staging.is_staged(table, staged_survey(self.job, unit))
                submitted = None if is_there else self.runner.submit([unit])[0]
                in_flight.append((unit, submitted))
            if not in_flight:
                return
            unit, submitted = in_flight.popleft()
            while submitted is not None and not self.runner.has_ended(submitted, SPEAK_SECONDS):
                self.log.info("survey: %d of %s", n_ended, counted(len(units), "unit"))
            n_ended += 1
            error = None if submitted is None else self.runner.result(submitted)
            if not isinstance(error, BaseException):
                yield unit, read_survey(table, staged_survey(self.job, unit))
            elif isinstance(error, Transient) or not isinstance(error, Exception):
                raise error
            elif failed_before and len(unit.files) == 1:
                self.log.error("%s cannot be surveyed: %s", unit.label, words(error))
                yield unit, [failed_survey(self.job, unit)]
            else:
                self.log.warning("survey of %s failed, once more: %s", unit.label, words(error))
                yield from self._results(halves(unit), failed_before=True)


def _comes_in(before: FileSurvey, after: FileSurvey) -> bool:
    """Whether a document of a file is taken that was not."""
    was, now = before.candidates["stage"], after.candidates["stage"]
    return bool(((now == TAKEN) & (was != TAKEN)).any())


def settle(
    job: Job,
    source: Discovery,
    rules: Mapping[str, Any],
    runner: SurveyRunner[Any],
    log: Log,
) -> Choices:
    """Settle the choice of a source that was listed; see ``Settlement.settle``."""
    listing = Listing.of(job.recipe.source, source, Choosing.asked_by(job.recipe.source), rules)
    return Settlement(job, listing, runner, log).settle()
