"""File formats: each turns the bytes of a file into records."""
