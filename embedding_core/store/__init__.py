"""Places where files are: how they are listed, opened and written, and what their faults mean."""
