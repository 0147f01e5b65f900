"""The source against the table: what a run would do, before anything is paid for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from embedding_core.chunking import resolve_chunk_spec
from embedding_core.encoder import Tokenizer
from embedding_core.errors import RejectedInput
from embedding_core.identity import file_key, rows_id, space_id, unit_id
from embedding_core.lake import Table, check_owner, ledger, table_of
from embedding_core.pipeline.job import resolve
from embedding_core.recipe import Recipe, SourceSpec
from embedding_core.records import Document, Plan, PlannedFile, SourceFile, Space, WorkUnit
from embedding_core.sources import discover, read_documents

SAMPLE_FILES = 3
SAMPLE_DOCUMENTS = 100
"""Per sampled file; 300 documents tell tokens per byte to a few percent on even corpora."""


def plan(recipe: Recipe) -> Plan:
    """Compare the source with the table; changes nothing.

    Raises ``SetupError`` when the source, the model or the table cannot be used.
    """
    resolved = resolve(recipe.model)
    chunk = resolve_chunk_spec(recipe.chunk, resolved.space.max_tokens)
    rules = rows_id(recipe, chunk, resolved.space)
    table = table_of(recipe)
    held = _held(table, recipe, resolved.space)
    found = discover(recipe.source)
    keys = {file.uri: file_key(file, rules) for file in found.files}
    files = _to_do(table, found.files, keys, held)
    unreadable = {reject.source_uri for reject in found.unreadable}
    gone = sorted(held.versions.keys() - keys.keys() - unreadable)
    tokens = _estimate_tokens(files, recipe.source, resolved.tokenizer)
    rate = ledger.tokens_per_second(table)
    return Plan(
        recipe=recipe.name,
        space_id=space_id(resolved.space),
        rows_id=rules,
        files=files,
        removed_uris=tuple(gone),
        removed_keys=tuple(sorted(key for uri in gone for key in held.versions[uri])),
        unchanged=len(keys) - len(files),
        unreadable=found.unreadable,
        estimated_tokens=tokens,
        estimated_seconds=tokens / rate if rate else None,
    )


def work_units(planned: Plan, unit_bytes: int) -> Iterator[WorkUnit]:
    """The planned files in order, small ones packed to about ``unit_bytes``, each exactly once."""
    pack: list[PlannedFile] = []
    packed_bytes = 0
    for one in planned.files:
        if pack and packed_bytes + one.file.size_bytes > unit_bytes:
            yield _unit(pack, planned.space_id)
            pack, packed_bytes = [], 0
        pack.append(one)
        packed_bytes += one.file.size_bytes
    if pack:
        yield _unit(pack, planned.space_id)


def _unit(files: Sequence[PlannedFile], space: str) -> WorkUnit:
    return WorkUnit(unit_id((one.file_key for one in files), space), tuple(files))


@dataclass(frozen=True, slots=True)
class _Held:
    versions: dict[str, set[str]]
    """File keys that have rows in the table, by source URI."""
    empty: frozenset[str]
    """File keys that were worked through and gave no rows."""


def _held(table: Table, recipe: Recipe, space: Space) -> _Held:
    if not table.exists():
        return _Held({}, frozenset())
    check_owner(table, recipe, space)
    versions: dict[str, set[str]] = defaultdict(set)
    for version in table.file_versions():
        versions[version.source_uri].add(version.file_key)
    return _Held(dict(versions), ledger.keys_without_rows(table))


def _to_do(
    table: Table, files: Sequence[SourceFile], keys: dict[str, str], held: _Held
) -> tuple[PlannedFile, ...]:
    """Files whose current version is not in the table, or that have rows of another version too."""
    todo = []
    for file in files:
        key, versions = keys[file.uri], held.versions.get(file.uri, set())
        if key not in held.empty and versions != {key}:
            todo.append((file, key, tuple(sorted(versions))))
    known = ledger.entries_of(table, [old for _, _, olds in todo for old in olds])
    return tuple(
        PlannedFile(
            file=file,
            file_key=key,
            change="changed" if olds else "added",
            why=_why(file, [known[old] for old in olds if old in known]) if olds else "new file",
            replaces=olds,
        )
        for file, key, olds in todo
    )


def _why(file: SourceFile, old_entries: Sequence[dict[str, object]]) -> str:
    if any(entry["fingerprint"] == file.fingerprint for entry in old_entries):
        return "rules changed (text template, chunking, tokenizer or length policy)"
    return "content changed"


def _estimate_tokens(files: Sequence[PlannedFile], source: SourceSpec, tokenizer: Tokenizer) -> int:
    """Tokens of all files at the rate of a sample spread over them."""
    if not files:
        return 0
    step = max(1, len(files) // SAMPLE_FILES)
    sampled_tokens = sampled_bytes = 0
    for planned in files[::step][:SAMPLE_FILES]:
        tokens, n_bytes = _sample(planned.file, source, tokenizer)
        sampled_tokens += tokens
        sampled_bytes += n_bytes
    size_bytes = sum(planned.file.size_bytes for planned in files)
    return round(size_bytes * sampled_tokens / sampled_bytes) if sampled_bytes else 0


def _sample(file: SourceFile, source: SourceSpec, tokenizer: Tokenizer) -> tuple[int, int]:
    """(tokens, bytes) of a file's first documents: stored bytes of the file when it was read to
    its end, else bytes of the text."""
    texts: list[str] = []
    try:
        documents = (d for d in read_documents(file, source) if isinstance(d, Document))
        texts.extend(document.text for document in islice(documents, SAMPLE_DOCUMENTS))
    except RejectedInput:
        return 0, file.size_bytes  # the run itself lists it; an estimate may ignore it
    whole = len(texts) < SAMPLE_DOCUMENTS
    n_bytes = file.size_bytes if whole else sum(len(text.encode()) for text in texts)
    return sum(tokenizer.count(texts)), n_bytes
