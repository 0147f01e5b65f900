"""The same job as users of other tools would write it; each file runs in its own environment.

``python PROGRAM CORPUS LAKE MODEL``: bring the LanceDB table ``docs`` in ``LAKE`` up to date with
the JSON lines in ``CORPUS``: a row per document with ``doc_id``, ``source`` (the file's name),
``text`` and ``vector``, embedded by the sentence-transformers checkpoint in ``MODEL``.
"""
