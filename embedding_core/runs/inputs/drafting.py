"""Propose a recipe for files that nobody has described: each choice with its reason."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from embedding_core.chunking.structure.code import LANGUAGES, language_of
from embedding_core.encoder.engines import ModelInfo, describe_model
from embedding_core.encoder.installed import packaged_models
from embedding_core.errors import EmbedlakeError, RejectedInput, SetupError, UsageError, words
from embedding_core.plurals import counted
from embedding_core.recipe import RESERVED_COLUMNS, ModelSpec, Recipe, SourceSpec
from embedding_core.recipe.chunk import STRATEGIES
from embedding_core.recipe.paths import source_path
from embedding_core.records import SourceFile
from embedding_core.runs.inputs.field_choice import FieldChoice, chosen_fields, listed_fields
from embedding_core.runs.inputs.peeking import Peek, peek
from embedding_core.sources import discover
from embedding_core.sources.documents import raw_records
from embedding_core.sources.fields import FieldSurvey
from embedding_core.sources.finding import listed_files
from embedding_core.sources.formats.delimited import OTHER_DELIMITERS, CsvOptions
from embedding_core.sources.formats.format import Record
from embedding_core.sources.formats.recognition import readable_names, suffixes
from embedding_core.store.local import LOCAL
from embedding_core.store.places import place_of

DEFAULT_MODEL = "Qwen/Qwen3-Embedding-0.6B"
"""The hub's, where no installed package ships a model."""
FILES_LISTED = 1_000
"""Files whose names are looked at."""
FILES_READ = 5
RECORDS_READ = 200
"""Records of each of them."""
CHUNK_TOKENS = 512
OVERLAP = 0.1
"""Share of a chunk that the next one repeats."""
CHARACTERS_PER_TOKEN = 3
"""Fewer than most languages have with most tokenizers."""
FILE_FIELDS = {"text", "name", "uri"}
"""Fields that documents of prose formats have."""
CODE_ENDINGS = tuple(f".{ending}" for ending in LANGUAGES)
WHY_STRATEGY = {
    "markdown": "Markdown is cut along its sections, with the headings embedded before each chunk",
    "code": "source code is cut at definitions and statements, by the end of each file's name",
}
"""Reasons for other strategies than ``tokens``."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A recipe that was proposed."""

    content: Mapping[str, Any]
    """The recipe, as its YAML file has it."""
    why: Mapping[str, str]
    """Reasons by the key of a choice, with dots: ``source.text``."""
    unused: tuple[str, ...]
    """A sentence for each field that the recipe does not use."""
    formats: Mapping[str, int]
    """Files by format, among those that were looked at."""
    files: int
    """Files that were looked at."""
    records: int
    """Records that were read."""
    model_problem: str | None
    """Why the model cannot be read here; None when it can."""
    peek: Peek
    """What the first file becomes by the recipe; without the model, counted in words."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person has said already."""

    uri: str
    """The source: a path or a URI."""
    folder: Path
    """Where the recipe will be."""
    name: str
    model: str | None = None
    config: str | None = None
    """Config of a hub's dataset."""


def draft(wish: Wish) -> Draft:
    """Look at a source and propose a recipe that reads it; writes nothing.

    Raises ``SetupError`` when there is nothing to read, nothing that can be read, or no field that
    looks like a text, with what was there.
    """
    uri = source_path(wish.uri, Path.cwd())
    files = _files(SourceSpec(uri=uri, config=wish.config))
    sample = _sampled(files, SourceSpec(uri=uri))
    chosen = chosen_fields(sample.survey, sample.is_prose)
    if chosen is None:
        raise SetupError(
            f"no field of the {counted(sample.survey.n_records, 'record')} that were read in {uri} "
            f"looks like a text; the fields: {'; '.join(listed_fields(sample.survey)) or 'none'}. "
            "Write a recipe whose source.text names a field, or a template over several"
        )
    why: dict[str, str] = {}
    source = _source(wish, uri, files, sample, why) | _mapping(chosen, why)
    model = _model(wish.model, why)
    chunk = _chunk(sample, chosen, model.info, why)
    table = re.sub(r"_{2,}", "_", re.sub(r"[^A-Za-z0-9_.-]", "_", wish.name)).lstrip("_.-")
    content = {
        "name": wish.name,
        "source": source,
        "chunk": chunk,
        "model": {"name": model.name},
        "lake": {"uri": "./lake", "table": table or "table"},
    }
    recipe = Recipe.load(content, wish.folder)
    if model.info is None:
        recipe = recipe.with_model("hashing")
    return Draft(
        content=content,
        why=why,
        unused=chosen.unused,
        formats=dict(sample.formats.most_common()),
        files=len(files),
        records=sample.survey.n_records,
        model_problem=model.problem,
        peek=peek(recipe, sample.files[0].uri),
    )


@dataclass(slots=True)
class _Sample:
    """What was read of the files."""

    survey: FieldSurvey = field(default_factory=FieldSurvey)
    """Fields of the chosen formats' records."""
    files: list[SourceFile] = field(default_factory=list)
    """Files of the chosen formats that were read, those that hold something first."""
    formats: Counter[str] = field(default_factory=Counter)
    endings: set[str] = field(default_factory=set)
    """Ends of the names of the chosen formats' files."""
    left_out: list[str] = field(default_factory=list)
    """Names of files of other formats."""
    is_prose: bool = False
    """Whether each file is a text."""
    strategies: Counter[str] = field(default_factory=Counter)
    """Stored bytes of the chosen formats' files by the chunk strategy that suits them."""
    delimiter: str | None = None
    """What stands between the cells of CSV files, where it is not the usual."""

    @property
    def suited(self) -> str:
        """The chunk strategy that suits most bytes."""
        return max(self.strategies, key=lambda name: (self.strategies[name], name))


def _files(spec: SourceSpec) -> list[SourceFile]:
    """The first files of the source: those with names of known formats, with source code if a local
    folder has more of it; without any of these, files of every name."""
    files = list(islice(listed_files(spec), FILES_LISTED))
    if place_of(spec.uri) is LOCAL and Path(spec.uri).is_dir():
        include = tuple(f"**/*{ending}" for ending in CODE_ENDINGS)
        listed = listed_files(spec.model_copy(update={"include": include}))
        code = list(islice(listed, FILES_LISTED - len(files)))
        if _n_bytes(code) > _n_bytes(files):
            files += code
    if not files:
        any_name = spec.model_copy(update={"include": ("**/*",)})
        files = list(islice(listed_files(any_name), FILES_LISTED))
    if not files:
        passed_over = discover(spec, may_be_empty=True).passed_over
        raise SetupError(
            f"nothing to read in {spec.uri}: it has no file of a format that is read "
            f"({readable_names()}), and "
            f"{counted(passed_over.hidden, 'name begins', 'names begin')} with _ or .; name "
            "another folder, or put files there"
        )
    return files


def _n_bytes(files: Sequence[SourceFile]) -> int:
    return sum(file.size_bytes for file in files)


def _sampled(files: Sequence[SourceFile], spec: SourceSpec) -> _Sample:
    """Read records of some files of each format, and choose the format with most bytes."""
    by_format, problems = _by_format(files, spec)
    if not by_format:
        raise SetupError(
            f"none of the first {counted(len(problems), 'file')} of {spec.uri} can be read: "
            f"{problems[0] if problems else 'they hold nothing'}"
        )
    prose = {name for name, group in by_format.items() if group.is_prose}
    n_bytes = {name: group.n_bytes for name, group in by_format.items()}
    largest = max(n_bytes, key=lambda name: (name not in prose, n_bytes[name]))
    if sum(n_bytes[name] for name in prose) > n_bytes[largest]:
        largest = max(prose, key=n_bytes.__getitem__)
    chosen = prose if largest in prose else {largest}
    sample = _Sample(is_prose=largest in prose)
    for name, group in by_format.items():
        sample.formats[name] = len(group.files)
        names = [file.uri for file in group.files]
        if name not in chosen:
            sample.left_out += names
            continue
        sample.delimiter = sample.delimiter or group.delimiter
        sample.endings |= _endings(names)
        for file in group.files:
            sample.strategies[_strategy(name, file.uri)] += file.size_bytes
        sample.files += group.read
        for number, records in enumerate(group.records):
            for record in records:
                sample.survey.add(record.fields, number)
    return sample


@dataclass(slots=True)
class _Format:
    """The files of one format."""

    delimiter: str | None = None
    files: list[SourceFile] = field(default_factory=list)
    read: list[SourceFile] = field(default_factory=list)
    records: list[list[Record]] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        """Stored bytes of all its files."""
        return _n_bytes(self.files)

    @property
    def is_prose(self) -> bool:
        """Whether each file is a text, with its name and URI beside it."""
        first = next((records[0] for records in self.records if records), None)
        return first is not None and first.fields.keys() >= FILE_FIELDS


def _by_format(
    files: Sequence[SourceFile], spec: SourceSpec
) -> tuple[dict[str, _Format], list[str]]:
    """The files by format, which the first files of each ending tell by their content (source code
    is text), and why others cannot be read."""
    by_ending: dict[str, list[SourceFile]] = {}
    for file in files:
        by_ending.setdefault(_ending(file.uri), []).append(file)
    formats: dict[str, _Format] = {}
    problems: list[str] = []
    for ending, alike in by_ending.items():
        read_as = spec.model_copy(update={"format": "text"}) if ending in CODE_ENDINGS else spec
        holding = [file for file in alike if file.size_bytes] or alike
        step = max(1, len(holding) // FILES_READ)
        for number, file in enumerate(holding[::step][:FILES_READ]):
            try:
                name, records, delimiter = _first_records(file, read_as)
            except RejectedInput as error:
                problems.append(f"{file.uri}: {error}")
                continue
            group = formats.setdefault(name, _Format(delimiter=delimiter))
            if not number or not group.files:
                group.files += alike
            group.read.append(file)
            group.records.append(records)
    return formats, problems


def _first_records(file: SourceFile, spec: SourceSpec) -> tuple[str, list[Record], str | None]:
    """A file's format, its first records, and the delimiter that its cells need to be told apart,
    if that is not the usual one. Raises ``RejectedInput``."""
    name, records = _read(file, spec)
    if name != "csv" or any(len(record.fields) > 1 for record in records):
        return name, records, None
    for delimiter in OTHER_DELIMITERS:
        options = {"csv": CsvOptions(delimiter=delimiter)}
        with suppress(RejectedInput):
            _, others = _read(file, spec.model_copy(update={"formats": options}))
            if any(len(record.fields) > 1 for record in others):
                return name, others, delimiter
    return name, records, None


def _read(file: SourceFile, spec: SourceSpec) -> tuple[str, list[Record]]:
    name, records = raw_records(file, spec)
    first = islice(records, RECORDS_READ)
    return name, [record for record in first if isinstance(record, Record)]


def _ending(uri: str) -> str:
    """The end of a file's name that says its format, compression included; empty for a name that
    says none."""
    name = uri.rpartition("/")[2].lower()
    endings = (*suffixes(), *CODE_ENDINGS)
    return max((end for end in endings if name.endswith(end)), key=len, default="")


def _strategy(format_name: str, uri: str) -> str:
    """The chunk strategy that suits a file."""
    if format_name == "markdown":
        return "markdown"
    return "tokens" if format_name != "text" or language_of(uri) is None else "code"


def _endings(uris: Sequence[str]) -> set[str]:
    """Ends of names that choose these files: for names that say no format, what all of them end
    with after a dot, if anything."""
    unknown = {Path(uri).suffix for uri in uris if not _ending(uri)}
    endings = {_ending(uri) for uri in uris if _ending(uri)}
    return endings | (unknown if len(unknown) < 2 else {""})


def _source(
    wish: Wish, uri: str, files: Sequence[SourceFile], sample: _Sample, why: dict[str, str]
) -> dict[str, Any]:
    source: dict[str, Any] = {"uri": _written(uri, wish.folder)}
    if wish.config is not None:
        source["config"] = wish.config
    formats = ", ".join(f"{n:,} {name}" for name, n in sample.formats.most_common())
    more = " at least" if len(files) == FILES_LISTED else ""
    why["source.uri"] = f"{counted(len(files), 'file')}{more}, told by content: {formats}"
    is_folder = not (len(files) == 1 and files[0].uri == uri)
    unknown = any(not ending or ending not in suffixes() for ending in sample.endings)
    if is_folder and (sample.left_out or unknown):
        source["include"] = [f"**/*{ending}" for ending in sorted(sample.endings)]
        others = ", ".join(name.rpartition("/")[2] for name in sample.left_out[:3])
        more = ", …" if len(sample.left_out) > 3 else ""
        why["source.include"] = (
            f"leaves out {counted(len(sample.left_out), 'file')} of other formats: {others}{more}"
            if sample.left_out
            else "their names end with no known format"
        )
    if sample.suited == "code":
        source["format"] = "text"
        why["source.format"] = "source code is read as it is"
    if sample.delimiter is not None:
        source["formats"] = {"csv": {"delimiter": sample.delimiter}}
        why["source.formats"] = "with a comma the rows would have one cell"
    return source


def _written(uri: str, folder: Path) -> str:
    """The source's URI for a recipe in that folder: relative where the data is below it."""
    if place_of(uri) is not LOCAL:
        return uri
    relative = os.path.relpath(uri, folder.resolve())
    return uri if relative.startswith("..") else f"./{relative}".removesuffix("/.")


def _mapping(chosen: FieldChoice, why: dict[str, str]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, choice in chosen.choices.items():
        mapping[key] = choice.value
        why[f"source.{key}"] = choice.why
    if chosen.metadata:
        mapping["metadata"] = {}
        for column in chosen.metadata:
            name = _column_name(column.name, mapping["metadata"])
            section = {"field": column.path, "type": column.type}
            mapping["metadata"][name] = column.type if name == column.path else section
            why[f"source.metadata.{name}"] = column.why
    return mapping


def _column_name(name: str, others: Mapping[str, object]) -> str:
    """A name that a column of the table may have."""
    column = re.sub(r"\W", "_", name).strip("_") or "field"
    if column in RESERVED_COLUMNS or not column.isidentifier() or column.startswith("vector__"):
        column = f"source_{column}"
    number = 2
    unique = column
    while unique in others:
        unique, number = f"{column}_{number}", number + 1
    return unique


@dataclass(frozen=True, slots=True)
class _Model:
    name: str
    info: ModelInfo | None
    problem: str | None = None


def _model(named: str | None, why: dict[str, str]) -> _Model:
    """The model that was asked for, else the first that an installed package ships, else the
    default of the hub."""
    problem = None
    for name in (named,) if named is not None else (*packaged_models(), DEFAULT_MODEL):
        try:
            info = describe_model(ModelSpec(name=name))
        except EmbedlakeError as error:
            problem = words(error)
            continue
        limit = (
            f"takes {counted(info.space.max_tokens, 'token')}, "
            f"{counted(info.space.dim, 'dimension')}"
        )
        origin = "comes with an installed package, " if name.startswith("package:") else ""
        why["model"] = origin + limit
        return _Model(name, info)
    name = named or DEFAULT_MODEL
    why["model"] = "could not be read here; any other model may stand in its place"
    return _Model(name, None, problem)


def _chunk(
    sample: _Sample, chosen: FieldChoice, info: ModelInfo | None, why: dict[str, str]
) -> dict[str, Any]:
    """What suits the files, as long as the model takes but no longer than retrieval gains from."""
    limit = CHUNK_TOKENS if info is None else min(CHUNK_TOKENS, info.space.max_tokens)
    why["chunk"] = "documents are cut into windows; each repeats a tenth of the one before it"
    if chosen.longest_text is not None:
        is_short = chosen.longest_text <= limit * CHARACTERS_PER_TOKEN
        why["chunk"] = (
            f"the longest of {counted(sample.survey.n_records, 'sampled text')} has "
            f"{counted(chosen.longest_text, 'character')}: "
            + ("most documents are one chunk" if is_short else "documents are cut into windows")
        )
    strategy, reason = _suited(sample)
    why["chunk"] = f"{reason}; {why['chunk']}" if reason else why["chunk"]
    return {"strategy": strategy, "max_tokens": limit, "overlap": round(limit * OVERLAP)}


def _suited(sample: _Sample) -> tuple[str, str | None]:
    """The strategy that suits the files, and why it is not ``tokens``, or why it is ``tokens``
    although another would suit them."""
    strategy = sample.suited
    if strategy not in WHY_STRATEGY:
        return "tokens", None
    suited = STRATEGIES.get(strategy)
    try:
        suited.settle(suited.options(strategy=strategy), CHUNK_TOKENS)
    except UsageError as error:
        return "tokens", f"the strategy {strategy} would suit these files: {error}"
    return strategy, WHY_STRATEGY[strategy]
