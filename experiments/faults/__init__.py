"""Faults at every change of a file and every request, and an oracle that knows the true table.

    python -m experiments.faults
    python -m experiments.faults --only stops --most 10 --seed 3
    python -m experiments.faults --jobs 2 --seconds 1800

A run works in a child process. ``shim.c`` counts the changes that it makes to files of the lake,
and ``s3.proxy`` its requests. At a chosen one they kill the child, stop it or let the call fail.
Then the same run is done again, and the table, its ledger, rejects and indexes are compared with a
model of the files. Each injection is a line of a journal: the same command goes on where an ended
one was.
"""
