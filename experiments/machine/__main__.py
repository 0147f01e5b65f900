"""Load the shim into this process where there can be one, then tell stories: see ``program``."""

from __future__ import annotations

import sys

from experiments.faults import shim

if __name__ == "__main__":
    if shim.missing() is None:
        shim.restart_with_shim("experiments.machine", sys.argv[1:])
    from experiments.machine.program import main  # seconds to import, so not before the restart

    sys.exit(main())
