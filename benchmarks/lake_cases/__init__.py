"""The cases of ``benchmarks.lake``, by subject."""
