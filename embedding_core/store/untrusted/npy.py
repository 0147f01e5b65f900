"""Arrays in NumPy's own format, of which nothing is believed before it was checked.

``numpy.load`` makes room for as many values as the head of a file declares, however few follow.
"""

from __future__ import annotations

import io
import math
import tokenize
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from embedding_core.plurals import counted

HEAD_ERRORS = (
    SyntaxError,
    TypeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    tokenize.TokenError,
)
"""What comes of parsing a head, which is Python's text of a dictionary, beside ``ValueError``."""
READERS_OF_HEADS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The array as a file."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def read_head(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a file's values, which are in rows; the stream is at the first of them
    then. Raises ``ValueError`` for what is no head, and for values in another order."""
    version = np.lib.format.read_magic(stream)
    read = READERS_OF_HEADS.get(version)
    if read is None:
        raise ValueError(f"it is of version {version} of the format; 1.0 and 2.0 are read")
    try:
        shape, is_fortran, dtype = read(stream)
    except HEAD_ERRORS as error:
        raise ValueError(f"its head is damaged ({error})") from error
    if is_fortran or min(shape, default=0) < 0:
        raise ValueError(f"it holds {dtype} of the shape {shape} in this order")
    return shape, dtype


def read_npy(data: bytes, dtype: np.dtype[Any], n_dims: int) -> NDArray[Any]:
    """The array of a file. Raises ``ValueError`` for a file of another type or number of
    dimensions, and for one that does not hold the values that it declares."""
    stream = io.BytesIO(data)
    shape, declared = read_head(stream)
    if declared != dtype or len(shape) != n_dims:
        raise ValueError(f"it holds {declared} of the shape {shape}")
    n_bytes = len(data) - stream.tell()
    if n_bytes != math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"it declares the shape {shape} and has {counted(n_bytes, 'byte')} of values"
        )
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
