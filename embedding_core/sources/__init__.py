"""Files in, documents out: what is there, and what each record says.

``discover`` lists the files of a source with fingerprints of their content; ``read_documents``
streams one file's records as validated documents and rejects. Nothing here knows of tokens,
chunks, vectors or tables.
"""

from embedding_core.sources.discovery import Discovery, discover
from embedding_core.sources.readers import read_documents
from embedding_core.sources.template import TextTemplate

__all__ = ["Discovery", "TextTemplate", "discover", "read_documents"]
