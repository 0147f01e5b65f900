"""Runs a server for as long as the process lives that started it, however that process ends.

A program of the standard library alone: ``python guard.py COMMAND …``. It leads a session of its
own, and its stdin is a pipe that nobody writes to: the pipe ends with the process that has its
other end, by SIGKILL too. (``PR_SET_PDEATHSIG`` would fire when the starting *thread* ends.)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

STOP_SECONDS = 8.0
"""A server that has not stopped by then is killed."""


def main(command: list[str]) -> None:
    """Run the command; end with its exit code, or stop it when stdin ends."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=lambda: os._exit(server.wait()), daemon=True).start()
    sys.stdin.buffer.read()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    time.sleep(STOP_SECONDS)  # ended meanwhile by the thread, once the server has
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
