"""From a raw record to a validated document: id, text, metadata, in that order.

The first rule a record breaks is the reason of its reject. Ids are kept exactly as they are, and so
are texts, unless the recipe says otherwise: offsets and joins refer to them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from embedding_core.errors import RejectedInput
from embedding_core.identity import id_digest
from embedding_core.reasons import DUPLICATE_ID
from embedding_core.recipe import SourceSpec
from embedding_core.recipe.mapping.template import Placeholder, TextTemplate
from embedding_core.records import Document, Reject
from embedding_core.sources.formats.format import Fields, Flaw, Record, Rows, shown
from embedding_core.sources.mapping.batches import BatchMapper
from embedding_core.sources.mapping.grouping import group_reader
from embedding_core.sources.mapping.readers import (
    column_readers,
    id_reader,
    text_reader,
    title_reader,
)
from embedding_core.sources.mapping.turns import Conversation
from embedding_core.sources.mapping.user_map import MappedRecord


class RecordMapper:
    """Maps the records of ONE file, or of a slice of one; remembers the ids it has given out.

    Of several usable records with one id the first wins and the others are rejected as
    ``duplicate_id``. Memory: a 16-byte hash per document, only when an id field is declared.
    """

    def __init__(self, spec: SourceSpec, source_uri: str, used_ids: Collection[bytes] = ()) -> None:
        """``used_ids``: digests of ids that earlier slices of the file have given out."""
        self.fields = fields_of(spec)
        """Every field that has to be read from the file."""
        self._uri = source_uri
        self._read_id = None if spec.id is None else id_reader(spec.id)
        self._read_text = text_reader(spec)
        self._read_title = title_reader(spec)
        self._columns = column_readers(spec.metadata, source_uri)
        self._conversation = None if spec.conversation is None else Conversation(spec.conversation)
        self._group = group_reader(spec, source_uri)
        self._used_ids = set(used_ids)
        self._batches = BatchMapper(spec, source_uri, self._used_ids)

    def documents(self, rows: Rows) -> Iterator[Document] | None:
        """The documents of a batch; None for one that has to be mapped record by record."""
        return self._batches.documents(rows)

    def map(self, record: Record | MappedRecord | Flaw) -> Document | Reject:
        """The document, or the reject that says which rule the record broke."""
        position = record.position
        if isinstance(record, Flaw):
            return Reject(self._uri, None, position, record.reason.name, record.detail)
        doc_id, fields, columns = None, record.fields, self._columns
        try:
            doc_id = _numbered(record) if self._read_id is None else self._read_id(fields)
            if self._conversation is not None:
                fields = {**fields, **self._conversation.derived(fields)}
            text = self._read_text(fields)
            metadata = {name: read(fields) for name, read in columns} if columns else {}
            title = None if self._read_title is None else self._read_title(fields)
            if self._read_id is not None:
                self._claim(doc_id)
        except RejectedInput as error:
            return Reject(self._uri, doc_id, position, error.reason, error.detail)
        group = None if self._group is None else self._group(fields, metadata)
        return Document(doc_id, position, text, metadata, title, self._uri, group)

    def _claim(self, doc_id: str) -> None:
        """Only usable records claim their id, so a bad first one does not hide a good second."""
        key = id_digest(doc_id)
        if key in self._used_ids:
            raise RejectedInput(
                DUPLICATE_ID,
                f"id {shown(doc_id)} was already used in this file; the first record is kept",
            )
        self._used_ids.add(key)


def fields_of(spec: SourceSpec) -> Fields:
    """The fields that a recipe reads of a file: those of its map, else those of everything else."""
    if spec.map is not None:
        return Fields((), spec.map.fields or (), everything=spec.map.fields is None)
    derived = frozenset(spec.conversation.derived if spec.conversation is not None else ())
    texts = _placeholders(spec.text, derived)
    titles = _placeholders(spec.title, derived)
    per = spec.sample.per if spec.sample is not None else None
    columns = (column.field for column in spec.metadata.values())
    return Fields(
        required=(
            *([spec.id] if spec.id is not None else []),
            *([spec.conversation.messages] if spec.conversation is not None else []),
            *(placeholder.path.written for placeholder in texts if placeholder.default is None),
        ),
        optional=(
            *(placeholder.path.written for placeholder in texts if placeholder.default is not None),
            *(placeholder.path.written for placeholder in titles),
            *(name for name in columns if name not in derived),
            *([per] if per is not None and per not in derived else []),
        ),
    )


def _placeholders(template: str | None, derived: Collection[str]) -> list[Placeholder]:
    """The placeholders of a template that are fields of the file."""
    if template is None:
        return []
    parsed = TextTemplate.parse(template)
    return [
        placeholder for placeholder in parsed.placeholders if placeholder.path.root not in derived
    ]


def _numbered(record: Record | MappedRecord) -> str:
    """The id of a document without an id field: its position, and its number among several."""
    number = record.number if isinstance(record, MappedRecord) else None
    return str(record.position) if number is None else f"{record.position}.{number}"
