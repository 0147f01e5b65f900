"""Formats of typed columns, read by Arrow."""
