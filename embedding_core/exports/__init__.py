"""Rows of a table, written for other tools: one exporter per kind of target."""
