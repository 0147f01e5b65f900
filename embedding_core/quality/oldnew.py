"""A value of the space in service, and the same value of the space that may replace it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OldNew(Generic[T]):
    """A value of each space."""

    old: T
    """Value of the space in service."""
    new: T
    """Value of the space that is judged."""
