"""Strategies that cut where the structure of a text says so: sentences, Markdown, code."""
