"""A checkpoint as it is on disk: found, read, described. Loads no torch."""
