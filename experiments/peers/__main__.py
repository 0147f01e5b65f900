"""Load the shim into this process, then put the peers to the trials: see ``command``."""

from __future__ import annotations

import sys

from experiments.faults import shim

if __name__ == "__main__":
    if why := shim.missing():
        sys.exit(why)
    shim.restart_with_shim("experiments.peers", sys.argv[1:])
    from experiments.peers.command import main  # seconds to import, so not before the restart

    main()
