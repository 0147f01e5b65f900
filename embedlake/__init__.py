"""Prefect and Ray, and the command line: who runs the pipeline, where, and how they say so."""
