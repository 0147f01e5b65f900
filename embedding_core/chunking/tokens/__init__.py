"""The ``tokens`` strategy: overlapping windows, cut where a reader would cut."""
