"""Permits of a run on a real Ray: tasks share them, and a killed one's come back."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, os, ray, signal, threading, time
from embedlake.orchestration.shared_requests import permits_of, share_requests

def leased(run, name, n_wanted, dies):
    exchange = permits_of(run)
    n_permits = exchange(name, 0, n_wanted)
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return n_permits

def leased_all(run, n_wanted):
    exchange, n_permits = permits_of(run), 0
    while n_permits < n_wanted:
        n_permits = exchange("after", n_permits, n_wanted)
    return n_permits

ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
shared = share_requests("shared", 5, lost_seconds=600)
soon_lost = share_requests("soon lost", 5, lost_seconds=0.1)
lease, lease_all = ray.remote(max_retries=0)(leased), ray.remote(leased_all)
together = [ray.get(lease.remote("shared", name, 3, False)) for name in "ab"]
try:
    ray.get(lease.remote("soon lost", "killed", 2, True))
except ray.exceptions.WorkerCrashedError:
    together.append("killed")
after = ray.get(lease_all.remote("soon lost", 5))
answers = {"together": together, "after": after, "none": permits_of("other")}
print(json.dumps(answers))
"""


@pytest.mark.e2e
def test_tasks_share_the_permits_of_a_run_and_a_killed_task_gives_its_own_back() -> None:
    printed = subprocess.check_output([sys.executable, "-c", PROGRAM], text=True)
    answers = json.loads(printed.splitlines()[-1])
    assert answers == {"together": [3, 2, "killed"], "after": 5, "none": None}
