"""Keeping a table fit: compaction, clean-up, and damage found and removed."""
