"""The same job with each tool; each but embedlake runs in a virtual environment made for it.

``python PROGRAM CORPUS LAKE``: bring the LanceDB table ``docs`` in ``LAKE`` up to date with the
JSON lines in ``CORPUS``: rows of pieces of a document's text, with the name of its file and a
vector.
"""
