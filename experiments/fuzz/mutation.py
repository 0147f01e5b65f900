"""Bad inputs made of good ones: bytes are changed, cut, repeated and mixed, lengths are belied."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

MOST_BYTES = 512 * 1024
"""Longest input that is made; what it becomes when it is decompressed may be far longer."""
MOST_STEPS = 5
TAIL_BYTES = 512
"""Columnar and zipped files say at their end what they hold: half of all changes are made there."""
INTERESTING = (0, 1, 2, 7, 8, 16, 64, 100, 127, 128, 255, 256, 1_000, 4_096, 32_767, 32_768, 65_535,
               65_536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
"""Numbers beside which programs count wrongly."""

Step = Callable[[bytearray, Random, "Material"], None]
"""Changes bytes in place."""
Shape = Callable[[bytes, Random, "Material"], bytes | None]
"""Takes an input apart, changes a part, puts it together again; None for what it cannot take
apart."""


@dataclass(frozen=True, slots=True)
class Material:
    """What inputs of a target are made of."""

    seeds: Sequence[bytes]
    """Good inputs, and others that were interesting."""
    tokens: Sequence[bytes] = ()
    """Words of the format, which chance would take too long to hit upon."""
    shapes: Sequence[Shape] = ()
    """Ways to change an input's structure instead of its bytes."""


def made(material: Material, target: str, seed: int, number: int) -> bytes:
    """The input of a number: the same for the same material."""
    chance = Random(f"{target} {seed} {number}")
    data = chance.choice(material.seeds)
    if material.shapes and chance.random() < 0.6:
        shaped = chance.choice(material.shapes)(data, chance, material)
        if shaped is not None:
            return shaped if chance.random() < 0.8 else mutated(shaped, chance, material)
    return mutated(data, chance, material)


def mutated(data: bytes, chance: Random, material: Material) -> bytes:
    """The bytes after one or several steps."""
    changed = bytearray(data[:MOST_BYTES])
    for _ in range(chance.randint(1, MOST_STEPS)):
        chance.choice(STEPS)(changed, chance, material)
        del changed[MOST_BYTES:]
    return bytes(changed)


def _offset(data: bytearray, chance: Random) -> int:
    """Somewhere in the data, as often as not near its end."""
    if len(data) > TAIL_BYTES and chance.random() < 0.5:
        return len(data) - chance.randrange(TAIL_BYTES) - 1
    return chance.randrange(len(data)) if data else 0


def _flip(data: bytearray, chance: Random, material: Material) -> None:
    if data:
        data[_offset(data, chance)] ^= 1 << chance.randrange(8)


def _set_byte(data: bytearray, chance: Random, material: Material) -> None:
    if data:
        data[_offset(data, chance)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))


def _set_number(data: bytearray, chance: Random, material: Material) -> None:
    """Put a number over some bytes, as a length that is none."""
    code, size = chance.choice((("H", 2), ("I", 4), ("Q", 8)))
    value = chance.choice((*INTERESTING, len(data), len(data) + 1)) % 256**size
    start = _offset(data, chance)
    number = struct.pack(chance.choice("<>") + code, value)
    data[start : start + size] = number[: max(0, len(data) - start)]


def _add_to_byte(data: bytearray, chance: Random, material: Material) -> None:
    if data:
        at = _offset(data, chance)
        data[at] = (data[at] + chance.choice((-16, -2, -1, 1, 2, 16))) % 256


def _truncate(data: bytearray, chance: Random, material: Material) -> None:
    del data[_offset(data, chance) :]


def _remove(data: bytearray, chance: Random, material: Material) -> None:
    start = _offset(data, chance)
    del data[start : start + chance.choice((1, 2, 4, 8, 64, 1_024))]


def _repeat(data: bytearray, chance: Random, material: Material) -> None:
    """Repeat a piece, sometimes very often: lists grow long, brackets deep."""
    start = _offset(data, chance)
    piece = data[start : start + chance.choice((1, 2, 5, 16, 200))]
    data[start:start] = piece * chance.choice((1, 2, 3, 50, 5_000))


def _insert_token(data: bytearray, chance: Random, material: Material) -> None:
    if material.tokens:
        start = _offset(data, chance)
        data[start:start] = chance.choice(material.tokens) * chance.choice((1, 1, 1, 2, 300))


def _insert_noise(data: bytearray, chance: Random, material: Material) -> None:
    start = _offset(data, chance)
    data[start:start] = chance.randbytes(chance.choice((1, 4, 32, 300)))


def _splice(data: bytearray, chance: Random, material: Material) -> None:
    """Put a piece of another input in."""
    other = chance.choice(material.seeds)
    start, end = sorted(chance.randrange(len(other) + 1) for _ in range(2))
    at = _offset(data, chance)
    until = at if chance.random() < 0.5 else at + end - start
    data[at:until] = other[start:end]


def _move(data: bytearray, chance: Random, material: Material) -> None:
    start = _offset(data, chance)
    piece = data[start : start + chance.choice((1, 8, 100))]
    del data[start : start + len(piece)]
    at = _offset(data, chance)
    data[at:at] = piece


STEPS: Sequence[Step] = (
    _flip,
    _set_byte,
    _set_number,
    _add_to_byte,
    _truncate,
    _remove,
    _repeat,
    _insert_token,
    _insert_token,
    _insert_noise,
    _splice,
    _move,
)
