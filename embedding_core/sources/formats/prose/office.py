"""What Office files share: ZIP archives of XML, in which a part says what the file is."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from io import BytesIO, RawIOBase

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import CORRUPT_OFFICE, ENCRYPTED, TEXT_TOO_LONG
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
XML_ENDS = (".xml", ".rels")
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
        with zipfile.ZipFile(stream) as archive:
            return Fit.CERTAIN if part in archive.namelist() else Fit.NONE
    except ERRORS:
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
        with zipfile.ZipFile(BytesIO(data)) as archive:
            _check_passwords(archive)
            _check_sizes(archive)
            broken = archive.testzip()
    except ERRORS as error:
        raise RejectedInput(CORRUPT_OFFICE, words(error)) from error
    if broken is not None:
        detail = f"{shown(broken)} in it is damaged; copy the file again"
        raise RejectedInput(CORRUPT_OFFICE, detail)
    return BytesIO(data)


def _check_passwords(archive: zipfile.ZipFile) -> None:
    """Raise ``RejectedInput`` for an archive with a part that asks for a password."""
    for part in archive.infolist():
        if part.flag_bits & PASSWORD_FLAG:
            raise RejectedInput(
                ENCRYPTED,
                f"{shown(part.filename)} in it has a password; save the file again, without one",
            )


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Raise ``RejectedInput`` for an archive that would become far larger than it is. A part with
    more bytes than it declares is damaged, so the declared sizes can be believed."""
    parts = archive.infolist()
    for what, limit, sizes in (
        ("its XML", MAX_XML_BYTES, [p.file_size for p in parts if p.filename.endswith(XML_ENDS)]),
        ("what is in it", MAX_PART_BYTES, [part.file_size for part in parts]),
    ):
        if sum(sizes) > limit:
            raise RejectedInput(
                TEXT_TOO_LONG, f"{what} has {sum(sizes)} bytes, the limit is {limit}; split it"
            )
