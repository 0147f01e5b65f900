"""Searching a table, and what a search finds."""
