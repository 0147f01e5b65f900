"""Cases of ``benchmarks.release``."""
