"""The same faults for embedlake and for what people would use instead, in turn.

    python -m experiments.peers --environments DIR
    python -m experiments.peers --environments DIR --only kills --rounds 20 --peer embedlake

Each peer is a program of ``programs`` that brings a LanceDB table up to date with a folder of JSON
lines, as its own documentation says, in a virtual environment of its own that is made from
``environments``. The files, their changes, the vectors and the faults are the same. Then the same
command is given again, and an oracle that knows nothing of any peer compares the words in the table
with the words in the files.
"""
