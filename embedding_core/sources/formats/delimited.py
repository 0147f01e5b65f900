"""CSV and TSV: rows of cells, which are texts; ``007`` stays ``007``.

Python's parser reads row by row, so that a bad row costs one row: a row with more or fewer cells
than there are columns, a quote in the wrong place, bytes of another encoding. A file is read as a
whole: where a quoted cell may hold line ends, nobody can say in its middle where a row begins.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader, BytesIO, RawIOBase

from pydantic import field_validator

from embedding_core.errors import RejectedInput
from embedding_core.plurals import counted
from embedding_core.reasons import (
    DUPLICATE_COLUMN,
    INVALID_UTF8,
    LINE_TOO_LONG,
    MALFORMED_ROW,
    MISSING_COLUMN,
    RAGGED_ROW,
    TOO_MANY_VALUES,
    UNCLOSED_QUOTE,
    Reason,
)
from embedding_core.recipe.formats import Format
from embedding_core.recipe.mapping.field_path import FieldPath
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import (
    Cell,
    Fields,
    Fit,
    Flaw,
    Record,
    TextFormat,
    TextOptions,
    listed,
    no_column,
)
from embedding_core.sources.formats.waste import Waste

MAX_ROW_BYTES = 64 * 1024 * 1024
"""Longest row that is parsed."""
MOST_CELLS = 1_000_000
"""Most cells of a row that is parsed: each takes far more memory than its delimiter."""
BUFFER_BYTES = 1024 * 1024
"""Read-ahead, which also tells how many bytes a row takes."""
OTHER_DELIMITERS = (";", "\t", "|", ",")
"""What a header may be cut by instead."""
BARE_CARRIAGE_RETURN = re.compile(r"\r(?!\n|\Z)")
NOT_CSV = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{|\[\s*\{|<(?:!doctype|html))", re.IGNORECASE)


_Columns = list[tuple[int, str, type[str]]]
"""Number, name and type of each column that is needed."""


class CsvOptions(TextOptions):
    """How CSV and TSV files are read."""

    delimiter: str | None = None
    """Character between cells; default: a tab in ``.tsv`` files, else a comma."""
    header: tuple[str, ...] | None = None
    """Names of the columns of files without a row of names; default: the first row has them."""
    nulls: tuple[str, ...] = ()
    """Cells that stand for null, such as ``NA``; an empty cell is null where the recipe declares
    another type than string."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, delimiter: str | None) -> str | None:
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise ValueError(f"{delimiter!r} cannot be a delimiter; use a single character")
        return delimiter

    @field_validator("encoding")
    @classmethod
    def _with_ascii(cls, encoding: str) -> str:
        if '"\n'.encode(encoding) != b'"\n':
            raise ValueError(f"{encoding!r} has other quotes and line ends than ASCII; write UTF-8")
        return encoding


class Csv(TextFormat):
    """CSV; a record's position is the number of its row, header and blank lines not counted."""

    suffixes = (".csv", ".tsv", ".tab")
    options: CsvOptions = CsvOptions()

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """See ``Format``."""
        return Fit.NONE if NOT_CSV.match(head) else Fit.POSSIBLE

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """See ``Format``."""
        with BufferedReader(stream, BUFFER_BYTES) as lines:
            rows = _Rows(lines, self._delimiter(file), self.options)
            names = self._names(rows)
            if names is None:
                return
            columns = self._columns(names, fields, rows.delimiter)
            for position, row in enumerate(rows):
                yield self._record(position, row, len(names), columns)

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``."""
        look = stream.read(BUFFER_BYTES) or b""
        rows = _Rows(BytesIO(look), self._delimiter(file), self.options)
        n_rows = 0 if self.options.header is not None else -1
        with suppress(RejectedInput):  # the end of the look may be in a quoted cell
            n_rows += sum(1 for _ in rows)
        return len(look) / n_rows if n_rows > 0 else None

    def _delimiter(self, file: SourceFile) -> str:
        name = file.uri.rpartition("/")[2].lower()
        return self.options.delimiter or ("\t" if ".tsv" in name or ".tab" in name else ",")

    def _names(self, rows: _Rows) -> tuple[str, ...] | None:
        """Names of the columns; None for a file without a row."""
        if self.options.header is not None:
            return self.options.header
        first = next(rows, None)
        if first is None:
            return None
        if isinstance(first, _Bad):
            raise RejectedInput(first.reason, f"the header: {first.detail}")
        return tuple(first)

    def _columns(self, names: tuple[str, ...], fields: Fields, delimiter: str) -> _Columns:
        """Number, name and type of the columns that are needed."""
        there = listed(names)
        columns: _Columns = []
        for field in names if fields.everything else fields.all:
            name = field if field in names else FieldPath.parse(field).root
            if names.count(name) > 1:
                raise RejectedInput(DUPLICATE_COLUMN, f"column {name!r} more than once in {there}")
            if name in names:
                is_untyped = fields.everything or field in fields.optional
                columns.append((names.index(name), name, Cell if is_untyped else str))
            elif field in fields.required:
                others = [mark for mark in OTHER_DELIMITERS if mark != delimiter]
                mark = next((mark for mark in others if mark in "".join(names)), None)
                advice = f", or set source.formats.csv.delimiter to {mark!r}?" if mark else ""
                raise RejectedInput(MISSING_COLUMN, no_column(name, names) + advice)
        return columns

    def _record(
        self, position: int, row: list[str] | _Bad, width: int, columns: _Columns
    ) -> Record | Flaw:
        if isinstance(row, _Bad):
            return Flaw(position, row.reason, row.detail)
        if len(row) != width:
            return Flaw(
                position, RAGGED_ROW, f"the row has {counted(len(row), 'cell')}, the header {width}"
            )
        cells: dict[str, object] = {name: kind(row[number]) for number, name, kind in columns}
        nulls = self.options.nulls
        return Record(
            position, {name: None if cell in nulls else cell for name, cell in cells.items()}
        )


CSV: Format = Csv()


@dataclass(frozen=True, slots=True)
class _Bad:
    """What is wrong with a row."""

    reason: Reason
    detail: str


class _Rows:
    """The rows of a text in order, without blank ones: the cells, or what is wrong with them.

    Raises ``RejectedInput`` for a quote that is never closed: all that follows would be one cell.
    """

    def __init__(self, lines: BufferedIOBase, delimiter: str, options: CsvOptions) -> None:
        self._lines, self._encoding = lines, options.encoding
        self.delimiter = delimiter
        csv.field_size_limit(MAX_ROW_BYTES)  # of the process; the default is 128 KiB
        self._reader = csv.reader(self._texts(), delimiter=delimiter, strict=True)
        self._waste = Waste("blank or overlong rows")
        begin = rf"(?:\A|(?<={re.escape(delimiter)}))"
        self._quoted = re.compile(rf'{begin}"[^"]*+(?:""[^"]*+)*+(?:"|\Z)')
        self._first_line = self._n_lines = self._n_bytes = self._n_cells = 0
        self._line = ""
        self._problems: list[_Bad] = []
        self._has_ended = False

    def __iter__(self) -> Iterator[list[str] | _Bad]:
        return self

    def __next__(self) -> list[str] | _Bad:
        while True:
            self._n_bytes = self._n_cells = 0
            self._first_line = self._n_lines + 1
            self._problems.clear()
            try:
                row = next(self._reader)
            except csv.Error as error:
                if self._has_ended:
                    raise self._unclosed("the end of the file") from error
                return self._problems[0] if self._problems else self._malformed()
            if self._problems:
                return self._problems[0]
            if row:
                self._waste.use(self._n_bytes)
                return row
            self._waste.waste(1, self._n_bytes)

    def _texts(self) -> Iterator[str]:
        """The lines of the file; several are a row where a quoted cell has line ends."""
        while line := self._lines.readline(MAX_ROW_BYTES + 1):
            self._n_lines += 1
            self._n_bytes += len(line)
            if len(line) > MAX_ROW_BYTES:
                self._skip(line)
                yield "\n"
                continue
            if self._n_bytes > MAX_ROW_BYTES:
                raise self._unclosed(f"{MAX_ROW_BYTES:,} bytes")
            text = self._decoded(line)
            yield self._narrow(text.removeprefix("\ufeff") if self._n_lines == 1 else text)
        self._has_ended = True

    def _narrow(self, line: str) -> str:
        """The line; where the row has too many cells, an empty one that ends within quotes if the
        line does, so that the next row is where it was."""
        is_inside = self._first_line < self._n_lines  # a quoted cell goes on
        self._line = f'"{line}' if is_inside else line
        if self._n_bytes < MOST_CELLS:
            return line
        outside = self._outside_quotes()
        self._n_cells += outside.count(self.delimiter)
        if self._n_cells < MOST_CELLS:
            return line
        advice = "is it CSV, with this delimiter?"
        detail = f"the row has more than {MOST_CELLS:,} cells, the limit; {advice}"
        self._problems.append(_Bad(TOO_MANY_VALUES, detail))
        is_open = line.endswith("\n") and not outside.endswith("\n")
        return "\n" if is_open == is_inside else '"\n'

    def _outside_quotes(self) -> str:
        """The line that was read last, without its quoted cells."""
        return self._quoted.sub("", self._line) if '"' in self._line else self._line

    def _malformed(self) -> _Bad:
        """What keeps the row from being parsed: nothing else can, where the parser is strict."""
        if BARE_CARRIAGE_RETURN.search(self._outside_quotes()):
            problem = (
                "a carriage return stands where a line goes on; end lines with a line feed, or put "
                "the cell into quotes"
            )
        else:
            problem = (
                "a closing quote is followed by more than a delimiter; write a quote in a quoted "
                "cell twice"
            )
        return _Bad(MALFORMED_ROW, f"line {self._n_lines}: {problem}")

    def _decoded(self, line: bytes) -> str:
        try:
            return line.decode(self._encoding)
        except UnicodeDecodeError as error:
            detail = (
                f"line {self._n_lines}: byte 0x{line[error.start]:02x} at {error.start + 1} is not "
                f"{self._encoding}; set source.formats.csv.encoding, or write UTF-8"
            )
            self._problems.append(_Bad(INVALID_UTF8, detail))
            return line.decode(self._encoding, "replace")

    def _skip(self, line: bytes) -> None:
        n_bytes = len(line)
        while line and not line.endswith(b"\n"):
            line = self._lines.readline(BUFFER_BYTES)
            n_bytes += len(line)
            self._waste.waste(0, len(line))
        self._n_bytes = 0
        detail = f"the row has {counted(n_bytes, 'byte')}, the limit is {MAX_ROW_BYTES:,}; split it"
        self._problems.append(_Bad(LINE_TOO_LONG, detail))

    def _unclosed(self, within: str) -> RejectedInput:
        return RejectedInput(
            UNCLOSED_QUOTE,
            f"a quote in the row that begins at line {self._first_line} is not closed before "
            f"{within}; a quote in a quoted cell is written twice",
        )
