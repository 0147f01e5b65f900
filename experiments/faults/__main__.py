"""Load the shim into this process, then run the experiments: see ``command``."""

from __future__ import annotations

import sys

from experiments.faults import shim

if __name__ == "__main__":
    if why := shim.missing():
        sys.exit(why)
    shim.restart_with_shim("experiments.faults", sys.argv[1:])
    from experiments.faults.command import main  # seconds to import, so not before the restart

    sys.exit(main())
