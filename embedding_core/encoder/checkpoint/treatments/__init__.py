"""How embedlake treats each setting that transformers and sentence-transformers read.

A setting is honoured, or it changes no vector, or a checkpoint that sets it is refused by its name.
A key that is not in these tables is refused: it could decide vectors. docs/checkpoints.md shows the
tables; the tests hold each row against sentence-transformers.
"""
