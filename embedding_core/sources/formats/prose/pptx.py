"""PPTX: the texts of each slide, its tables and its notes; pictures and charts are left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import RawIOBase
from typing import Any, Literal

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import CORRUPT_OFFICE, NO_TEXT
from embedding_core.recipe.formats import Format, FormatOptions
from embedding_core.records import SourceFile, Span
from embedding_core.sources.formats.format import Fields, Fit, Flaw, Record
from embedding_core.sources.formats.prose.library import library
from embedding_core.sources.formats.prose.office import office_bytes, office_fit
from embedding_core.sources.formats.prose.text import file_fields
from embedding_core.store.retry import never_silent

REPEATED = (13, 15, 16)
"""Numbers of the placeholders that every slide repeats: slide number, footer, date."""


class PptxOptions(FormatOptions):
    """How PPTX files are read."""

    record: Literal["slide", "file"] = "slide"
    """A record is a slide, or the file with a blank line between slides."""


class Pptx:
    """A slide is a record, its position its 0-based number; an empty slide is no record."""

    suffixes = (".pptx",)
    options: PptxOptions = PptxOptions()
    is_text = False

    def fit(self, head: bytes, stream: RawIOBase) -> Fit:
        """See ``Format``."""
        return office_fit(head, stream, "ppt/presentation.xml")

    def records(
        self, stream: RawIOBase, file: SourceFile, fields: Fields, span: Span | None = None
    ) -> Iterator[Record | Flaw]:
        """Records with ``text``, ``title``, ``notes``, ``slide`` (1-based), ``slides``, ``name``,
        ``uri``."""
        pptx = library("pptx", "office")
        data = office_bytes(stream)
        try:
            with never_silent(f"read {file.uri}"):
                slides = [_slide(slide) for slide in pptx.Presentation(data).slides]
        except Exception as error:
            raise RejectedInput(CORRUPT_OFFICE, words(error)[:200]) from error
        if not any(slide.text or slide.is_pictured for slide in slides):
            raise RejectedInput(NO_TEXT, "none of its slides has anything on it")
        about = {"slides": len(slides)} | file_fields(file)
        if self.options.record == "file" and any(slide.text for slide in slides):
            yield Record(0, _joined(slides) | about)
        for number, slide in enumerate(slides):
            if slide.is_pictured and not slide.text:
                yield Flaw(number, NO_TEXT, f"slide {number + 1} has pictures and no text")
            elif slide.text and self.options.record == "slide":
                yield Record(number, slide.fields() | about | {"slide": number + 1})

    def spans(self, stream: RawIOBase, file: SourceFile, target_bytes: int) -> Iterator[Span]:
        """See ``Format``: a file is read as a whole."""
        return iter(())

    def bytes_per_record(self, stream: RawIOBase, file: SourceFile) -> float | None:
        """See ``Format``: it cannot be told without reading the file."""
        return file.size_bytes if self.options.record == "file" else None


PPTX: Format = Pptx()


@dataclass(frozen=True, slots=True)
class _Slide:
    """What is on a slide."""

    title: str
    text: str
    """The texts of its shapes, the title's first, in the order in which they are stored."""
    notes: str
    is_pictured: bool
    """Whether it has shapes without text, such as pictures and charts."""

    def fields(self) -> dict[str, object]:
        """The fields of a record."""
        return {"title": self.title, "text": self.text, "notes": self.notes}


def _slide(slide: Any) -> _Slide:
    shapes = [shape for shape in _flat(slide.shapes) if not _is_repeated(shape)]
    title = slide.shapes.title
    title_text = _text(title) if title is not None else ""
    texts = [_text(shape) for shape in shapes if title is None or shape.shape_id != title.shape_id]
    return _Slide(
        title=title_text,
        text="\n\n".join(text for text in [title_text, *texts] if text),
        notes=_text(slide.notes_slide.notes_text_frame) if slide.has_notes_slide else "",
        is_pictured=any(not getattr(shape, "has_text_frame", False) for shape in shapes),
    )


def _flat(shapes: Iterable[Any]) -> Iterator[Any]:
    """The shapes, and those in groups in their place."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _flat(shape.shapes)
        else:
            yield shape


def _is_repeated(shape: Any) -> bool:
    return bool(shape.is_placeholder) and shape.placeholder_format.type in REPEATED


def _text(shape: Any) -> str:
    """The text of a shape, a table's cells between bars; empty for what has none."""
    if getattr(shape, "has_table", False):
        return "\n".join(_rows(shape.table))
    written: str = getattr(shape, "text", "")
    return written.replace("\v", "\n").strip()


def _rows(table: Any) -> Iterator[str]:
    """The rows of a table. Its cells are asked for once: a row by its number counts all of them."""
    cells, width = list(table.iter_cells()), max(1, len(table.columns))
    for start in range(0, len(cells), width):
        yield " | ".join(cell.text.strip() for cell in cells[start : start + width])


def _joined(slides: Sequence[_Slide]) -> dict[str, object]:
    """The fields of a file that is one record."""
    titles = (slide.title for slide in slides if slide.title)
    return {
        "title": next(titles, ""),
        "text": "\n\n".join(slide.text for slide in slides if slide.text),
        "notes": "\n\n".join(slide.notes for slide in slides if slide.notes),
    }
