"""Checks of the code itself, for ``make check``."""
