"""Choose among the fields of a sample: the text, the id, the columns, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from embedding_core.records import ColumnType
from embedding_core.sources.fields import FieldSample, FieldSurvey

TEXT_NAMES = ("text", "content", "body", "prompt", "document", "passage", "article", "abstract",
              "message", "description", "question", "instruction", "page_content")  # fmt: skip
TITLE_NAMES = ("title", "headline", "subject", "heading")
ID_NAMES = ("id", "_id", "doc_id", "document_id", "prompt_id", "conversation_id", "uuid", "guid",
            "key", "docid", "pid")  # fmt: skip
NAME_BONUS = 4.0
"""A field called as texts are is taken before one of texts up to so many times as long."""
MOSTLY = 0.5
"""Share of the records that a text, a conversation or a column must be in."""
LEAST_CHARACTERS = 12
"""Average length of a text whose field is not called as texts are."""
MOST_TITLE_CHARACTERS = 200
MOST_COLUMN_CHARACTERS = 100
"""Longest string of a metadata column in the sample."""
MOST_COLUMNS = 16


@dataclass(frozen=True, slots=True)
class Choice:
    """What a key of the source section should be."""

    value: object
    why: str


@dataclass(frozen=True, slots=True)
class Column:
    """A metadata column."""

    name: str
    path: str
    type: ColumnType
    why: str


@dataclass(frozen=True, slots=True)
class FieldChoice:
    """What a source section should say of the fields."""

    choices: Mapping[str, Choice]
    """Choices by key, in the section's order."""
    metadata: tuple[Column, ...]
    unused: tuple[str, ...]
    """A sentence for each field that is left out."""
    longest_text: int | None
    """Characters of the longest text in the sample; None for conversations."""


def chosen_fields(survey: FieldSurvey, is_prose: bool) -> FieldChoice | None:
    """The fields that a recipe should use; None when no field looks like a text.

    ``is_prose``: each file is one text, whose name is a column.
    """
    samples = list(survey.by_path.values())
    turns = _conversation(survey)
    text = None if turns is not None else _text(survey, is_prose)
    main = turns or text
    if main is None:
        return None
    choices: dict[str, Choice] = {}
    identity = None if is_prose else _identity(survey, main)
    if identity is not None:
        choices["id"] = Choice(identity.path, "never null and unique in each file of the sample")
    used = {main.path} | ({identity.path} if identity is not None else set())
    columns: list[Column] = []
    if turns is not None:
        choices |= _conversation_choices(turns, survey)
        columns.append(Column("num_turns", "num_turns", "int", "derived from the conversation"))
    if text is not None:
        choices["text"] = _text_choice(text, survey)
    others = [sample for sample in samples if sample.path not in used]
    columns += [
        Column(sample.name, sample.path, kind, _coverage(survey, sample))
        for sample in others
        if (kind := _column_type(sample, survey, is_prose)) is not None
    ]
    columns = columns[:MOST_COLUMNS]
    used |= {column.path for column in columns}
    unused = (sample for sample in samples if sample.path not in used)
    return FieldChoice(
        choices,
        tuple(columns),
        tuple(_described(survey, sample) for sample in unused),
        None if turns is not None else main.longest,
    )


def listed_fields(survey: FieldSurvey) -> list[str]:
    """A sentence for each field."""
    return [_described(survey, sample) for sample in survey.by_path.values()]


def _conversation(survey: FieldSurvey) -> FieldSample | None:
    """The field that holds conversations in most records."""
    samples = [
        sample
        for sample in survey.by_path.values()
        if sample.n_turns > MOSTLY * survey.n_records and sample.n_turns == sample.n_values
    ]
    return max(samples, key=lambda sample: sample.n_turns, default=None)


def _conversation_choices(turns: FieldSample, survey: FieldSurvey) -> Iterator[tuple[str, Choice]]:
    roles = [role for role, _ in turns.last_roles.most_common()]
    section: object = turns.path
    if roles != ["assistant"]:
        section = {"messages": turns.path, "response_roles": roles}
    where = f"a list of turns, {_coverage(survey, turns)}; the last is by {' or '.join(roles)}"
    yield "conversation", Choice(section, where)
    yield "text", Choice("{prompt|}\n\n{response}", "all turns but the last, then the last")
    yield "whitespace", Choice("trim", "a conversation of one turn has no prompt")


def _text(survey: FieldSurvey, is_prose: bool) -> FieldSample | None:
    """The field with the longest strings; names that texts have count more."""
    if is_prose:
        return survey.by_path["text"]
    samples = [sample for sample in survey.by_path.values() if _is_text(sample, survey)]
    return max(samples, key=_score, default=None)


def _is_text(sample: FieldSample, survey: FieldSurvey) -> bool:
    n_strings = sample.kinds["string"]
    is_mostly_text = n_strings == sample.n_values and n_strings > MOSTLY * survey.n_records
    is_link = sample.n_urls > MOSTLY * n_strings
    is_number = sample.column_type not in ("string", None)  # texts of CSV files are numbers too
    is_known = sample.name.lower() in TEXT_NAMES
    is_long = sample.mean_characters >= LEAST_CHARACTERS
    return is_mostly_text and not is_link and not is_number and (is_known or is_long)


def _score(sample: FieldSample) -> float:
    name = sample.name.lower()
    bonus = NAME_BONUS if name in TEXT_NAMES else 1.0
    if name in ID_NAMES or name.endswith("_id"):
        bonus = 0.1
    return sample.mean_characters * bonus


def _text_choice(text: FieldSample, survey: FieldSurvey) -> Choice:
    """The text, behind the title where records have one."""
    reason = f"the longest strings: {text.mean_characters:,.0f} characters on average"
    if text.name.lower() in TEXT_NAMES:
        reason = f"called as texts are, {text.mean_characters:,.0f} characters on average"
    reason = f"{reason}, {_coverage(survey, text)}"
    for sample in survey.by_path.values():
        is_title = sample.name.lower() in TITLE_NAMES and sample.path != text.path
        if is_title and _is_short_text(sample) and survey.coverage(sample) > MOSTLY:
            is_always_there = sample.n_values == survey.n_records and not sample.n_blank
            title = sample.path if is_always_there else f"{sample.path}|"
            return Choice(f"{{{title}}}\n\n{{{text.path}}}", f"the title, then {reason}")
    return Choice(text.path, reason)


def _is_short_text(sample: FieldSample) -> bool:
    is_text = sample.kinds["string"] == sample.n_values
    return is_text and 0 < sample.longest <= MOST_TITLE_CHARACTERS


def _identity(survey: FieldSurvey, main: FieldSample) -> FieldSample | None:
    """The field that is called as ids are, and is one in the whole sample."""
    samples = {
        sample.path: sample
        for sample in survey.by_path.values()
        if sample.path != main.path
        and sample.n_values == survey.n_records
        and not sample.repeats
        and not sample.n_blank
        and set(sample.kinds) <= {"string", "int", "uuid"}
    }
    named = [path for name in ID_NAMES for path in samples if path.lower() == name]
    alike = [path for path in samples if path.lower().endswith("_id")]
    return next((samples[path] for path in (*named, *alike)), None)


def _column_type(sample: FieldSample, survey: FieldSurvey, is_prose: bool) -> ColumnType | None:
    """The type of a metadata column; None for a field that makes no column."""
    if is_prose and sample.path == "uri":  # the column source_uri has it
        return None
    is_rare = survey.coverage(sample) <= MOSTLY
    is_wide = sample.longest > MOST_COLUMN_CHARACTERS and sample.kinds["string"] > 0
    return None if is_rare or is_wide else sample.column_type


def _coverage(survey: FieldSurvey, sample: FieldSample) -> str:
    return f"in {survey.coverage(sample):.0%} of the sampled records"


def _described(survey: FieldSurvey, sample: FieldSample) -> str:
    kinds = "/".join(kind for kind, _ in sample.kinds.most_common()) or "null"
    length = f", {sample.mean_characters:,.0f} characters on average" if sample.characters else ""
    return f"{sample.path} ({kinds}{length}, {_coverage(survey, sample)})"
