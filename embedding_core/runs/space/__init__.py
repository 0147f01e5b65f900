"""A new model for a table: build its space, judge it, release it."""
