"""Rows of a table: written, committed, looked up, verified."""
