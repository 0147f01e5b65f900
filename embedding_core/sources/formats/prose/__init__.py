"""Formats of texts that people write and lay out."""
