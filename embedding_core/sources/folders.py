"""Values that the folders of a file name, as Hive writes them: ``lang=en/year=2024/0.parquet``.

Every folder of the URI counts, so the values depend on the file alone and not on where a source
begins; of two folders of one name the inner one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from embedding_core.recipe import MetadataColumn
from embedding_core.records import ColumnType, Scalar
from embedding_core.records.scalars import from_text
from embedding_core.sources.formats.format import Undecodable

NULL = "__HIVE_DEFAULT_PARTITION__"
"""The folder of rows whose value is null."""


def folder_values(
    uri: str, columns: Mapping[str, MetadataColumn]
) -> dict[str, Scalar | Undecodable]:
    """Values of the columns that a folder of the file names, by the column or by its field."""
    folders = [part.partition("=") for part in uri.split("/")[:-1] if "=" in part]
    written = {unquote(name): value for name, _, value in folders}
    return {
        name: _value(f"{key}={written[key]}", written[key], column.type)
        for name, column in columns.items()
        for key in (name, column.field)
        if key in written
    }


def _value(folder: str, written: str, declared: ColumnType) -> Scalar | Undecodable:
    if written == NULL:
        return None
    try:
        text = unquote(written, errors="strict")
        if "\0" in text:
            raise ValueError("a NUL character")
        return from_text(text, declared)
    except ValueError as error:
        return Undecodable("wrong_type", f"the folder {folder}: {error}")
