"""What Office files share: ZIP archives of XML, in which a part says what the file is."""

from __future__ import annotations

import lzma
import re
import struct
import zipfile
import zlib
from io import BytesIO, RawIOBase

from embedding_core.errors import RejectedInput, words
from embedding_core.plurals import counted
from embedding_core.reasons import CORRUPT_OFFICE, ENCRYPTED, TEXT_TOO_LONG, TOO_MANY_VALUES
from embedding_core.sources.formats.format import Fit, shown
from embedding_core.sources.formats.prose.text import whole_bytes

ZIP_MAGIC = b"PK\x03\x04"
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""Start of Office files with a password, and of those from before 2007."""
MAX_FILE_BYTES = 256 * 1024 * 1024
"""Largest file that is read; it is held in memory whole."""
MAX_XML_BYTES = 128 * 1024 * 1024
"""Most bytes that the XML in it may have when it is decompressed."""
MAX_PART_BYTES = 512 * 1024 * 1024
"""Most bytes that all of it may have then, pictures included."""
MOST_ELEMENTS = 500_000
"""Most elements that its XML may have: the libraries take up to half a minute for so many."""
MAX_DIRECTORY_BYTES = 8 * 1024 * 1024
"""Most bytes of the archive's list of parts, each of which takes far more memory than it has
bytes: about 100,000 parts."""
DOCUMENT_TYPE = re.compile(rb"(?:[^<]++|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE", re.DOTALL)
"""Begins XML with a document type, whose entities may multiply; Office writes none."""
XML_START = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\0]*<")
XML_LOOK_BYTES = 256
"""First bytes of a part that tell whether it is XML; its name need not say so."""
PASSWORD_FLAG = 1
"""Bit of a part that asks for a password."""
ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    ValueError,  # of names that are not UTF-8, too
    LookupError,
)
"""What ``zipfile`` raises for damaged archives."""


def office_fit(head: bytes, stream: RawIOBase, part: str) -> Fit:
    """How well a file fits the kind of Office file that has this part."""
    if not head.startswith(ZIP_MAGIC) or not stream.seekable():
        return Fit.NONE
    try:
        return Fit.CERTAIN if part in _opened(stream).namelist() else Fit.NONE
    except (*ERRORS, RejectedInput):  # whoever reads the file says why
        return Fit.NONE


def office_bytes(stream: RawIOBase) -> BytesIO:
    """The file in memory. Raises ``RejectedInput`` for one that cannot be opened."""
    data = whole_bytes(stream, MAX_FILE_BYTES, "make several files of it")
    if data.startswith(OLE_MAGIC):
        raise RejectedInput(
            ENCRYPTED,
            "the file has a password, or is of Office before 2007; save it again, without one",
        )
    try:
        archive = _opened(BytesIO(data))
        _check_passwords(archive)
        markup = [part for part in archive.infolist() if _is_xml(archive, part)]
        _check_sizes(archive, markup)
        broken = archive.testzip()
        if broken is None:
            _check_markup(archive, markup)
    except ERRORS as error:
        raise RejectedInput(CORRUPT_OFFICE, words(error)) from error
    if broken is not None:
        detail = f"{shown(broken)} in it is damaged; copy the file again"
        raise RejectedInput(CORRUPT_OFFICE, detail)
    return BytesIO(data)


class _Directory:
    """A file whose list of parts may not be longer than ``MAX_DIRECTORY_BYTES``."""

    def __init__(self, stream: RawIOBase | BytesIO) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes; the list is read at once, parts are read in pieces."""
        if size > MAX_DIRECTORY_BYTES:
            raise RejectedInput(
                TOO_MANY_VALUES,
                f"the list of what is in it has {counted(size, 'byte')}, the limit is "
                f"{MAX_DIRECTORY_BYTES}; split it",
            )
        return self._stream.read(size) or b""


def _opened(stream: RawIOBase | BytesIO) -> zipfile.ZipFile:
    return zipfile.ZipFile(_Directory(stream))


def _is_xml(archive: zipfile.ZipFile, part: zipfile.ZipInfo) -> bool:
    with archive.open(part) as stream:
        return XML_START.match(stream.read(XML_LOOK_BYTES)) is not None


def _check_markup(archive: zipfile.ZipFile, parts: list[zipfile.ZipInfo]) -> None:
    """Raise ``RejectedInput`` for XML that takes far more time or memory than it has bytes."""
    n_elements = 0
    for part in parts:
        xml = archive.read(part).replace(b"\0", b"")  # UTF-16 has them between its characters
        if DOCUMENT_TYPE.match(xml):
            detail = f"{shown(part.filename)} in it has a document type; save the file again"
            raise RejectedInput(CORRUPT_OFFICE, detail)
        n_elements += xml.count(b"<") - xml.count(b"</")
    if n_elements > MOST_ELEMENTS:
        raise RejectedInput(
            TOO_MANY_VALUES,
            f"its XML has {counted(n_elements, 'element')}, the limit is {MOST_ELEMENTS:,}; split "
            "it",
        )


def _check_passwords(archive: zipfile.ZipFile) -> None:
    """Raise ``RejectedInput`` for an archive with a part that asks for a password."""
    for part in archive.infolist():
        if part.flag_bits & PASSWORD_FLAG:
            raise RejectedInput(
                ENCRYPTED,
                f"{shown(part.filename)} in it has a password; save the file again, without one",
            )


def _check_sizes(archive: zipfile.ZipFile, markup: list[zipfile.ZipInfo]) -> None:
    """Raise ``RejectedInput`` for an archive that would become far larger than it is. A part with
    more bytes than it declares is damaged, so the declared sizes can be believed."""
    for what, limit, parts in (
        ("its XML", MAX_XML_BYTES, markup),
        ("what is in it", MAX_PART_BYTES, archive.infolist()),
    ):
        n_bytes = sum(part.file_size for part in parts)
        if n_bytes > limit:
            raise RejectedInput(
                TEXT_TOO_LONG,
                f"{what} has {counted(n_bytes, 'byte')}, the limit is {limit:,}; split it",
            )
