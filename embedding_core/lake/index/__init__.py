"""Indexes of a table: made, extended, tuned, checked."""
