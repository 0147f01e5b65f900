"""Rows of a table out as files, and in again."""
