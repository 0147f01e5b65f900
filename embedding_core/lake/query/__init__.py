"""Search a table, and the hits of a search."""
