"""A server as a process: serves a recipe's table on a free port of loopback, prints its URL.

python -m benchmarks.serve_cases.program RECIPE QUERIES_TOGETHER
"""

from __future__ import annotations

import os
import sys

from embedding_core.recipe import Recipe, Resources
from embedding_core.server.answering.limits import Limits
from embedding_core.server.answering.service import SearchService
from embedding_core.server.web.application import application
from embedding_core.server.web.listening import LOOPBACK, Server, address_of, listening_socket
from embedlake.environment import process_environment


def main(recipe: str, together: int) -> None:
    """Serve until the process is ended."""
    os.environ.update(process_environment())
    service = SearchService([Recipe.load(recipe)], Resources(), Limits(together=together))
    with listening_socket(LOOPBACK, 0) as listener:
        url = address_of(listener)
        server = Server(application(service), service.open, lambda: print(url, flush=True))
        server.run([listener])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
