"""Several processes on one table at once: runs, re-embeds, maintenance, readers, exports, imports.

They are experiments of ``python -m experiments.faults``: a round is an injection there.
"""
