"""Faults at every change of a file, and an oracle that knows what the table should say.

    python -m experiments.faults
    python -m experiments.faults --only stops --most 10 --seed 3

A run works in a child process. ``shim.c`` counts the changes that it makes to files of the lake. At
a chosen change the shim kills the child, stops it or lets the call fail. Then the same run is done
again, and the table, its ledger, rejects and indexes are compared with a model of the files.
"""
