"""Reading what others may have written: a value, or a ``ValueError``."""
