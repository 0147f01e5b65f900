"""Bad days of a Prefect server, of its worker and of a Ray cluster, amid runs on them.

They are experiments of ``python -m experiments.faults`` too. Their servers are real, and shared by
all injections of a process; each falls when a run has encoded as much as its seed says.
"""
