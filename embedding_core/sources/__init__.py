"""Files in, documents out: what is there, and what each record says.

``discover`` lists the files of a source with fingerprints of their content; ``read_documents``
streams one file's records as validated documents and rejects, ``slices`` says where a huge file can
be cut. Nothing here knows of tokens, chunks, vectors or tables.
"""

from embedding_core.sources.discovery import Discovery, discover
from embedding_core.sources.documents import (
    bytes_per_record,
    check_unchanged,
    read_documents,
    slices,
)

__all__ = [
    "Discovery",
    "bytes_per_record",
    "check_unchanged",
    "discover",
    "read_documents",
    "slices",
]
