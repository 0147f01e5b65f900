"""What Office files share: ZIP archives of XML, in which a part says what the file is."""

from __future__ import annotations

import zipfile
import zlib
from io import BytesIO, RawIOBase

from embedding_core.errors import RejectedInput, words
from embedding_core.reasons import CORRUPT_OFFICE, ENCRYPTED, TEXT_TOO_LONG
from embedding_core.sources.formats.format import Fit
from embedding_core.sources.formats.prose.text import whole_bytes

ZIP_MAGIC = b"PK\x03\x04"
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""Start of Office files with a password, and of those from before 2007."""
MAX_FILE_BYTES = 256 * 1024 * 1024
"""Largest file that is read; it is held in memory whole."""
MAX_XML_BYTES = 128 * 1024 * 1024
"""Most bytes that the XML in it may have when it is decompressed."""
ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError)


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
    """The file in memory. Raises ``RejectedInput`` for one that cannot be opened, or that would
    become far larger."""
    data = whole_bytes(stream, MAX_FILE_BYTES, "make several files of it")
    if data.startswith(OLE_MAGIC):
        raise RejectedInput(
            ENCRYPTED,
            "the file has a password, or is of Office before 2007; save it again, without one",
        )
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            n_bytes = sum(
                part.file_size for part in archive.infolist() if part.filename.endswith(".xml")
            )
            broken = archive.testzip() if n_bytes <= MAX_XML_BYTES else None
    except ERRORS as error:
        raise RejectedInput(CORRUPT_OFFICE, words(error)) from error
    if n_bytes > MAX_XML_BYTES:
        raise RejectedInput(
            TEXT_TOO_LONG, f"its XML has {n_bytes} bytes, the limit is {MAX_XML_BYTES}; split it"
        )
    if broken is not None:
        raise RejectedInput(CORRUPT_OFFICE, f"{broken!r} in it is damaged; copy the file again")
    return BytesIO(data)
