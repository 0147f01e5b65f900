"""Checkpoints run in this process, by torch."""
