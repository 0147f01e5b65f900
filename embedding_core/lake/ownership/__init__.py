"""Whose a table is, and how it follows its recipe."""
