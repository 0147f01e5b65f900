"""A server that seems farther away: a proxy on loopback that hands every byte on some time later.

It delays, and does not slow down: bytes that come while others wait are due their own time later.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

PIECE_BYTES = 1 << 16


@contextmanager
def far_away(url: str, seconds: float) -> Iterator[str]:
    """The URL of a server as one that gets requests so many seconds later, in a process of its
    own."""
    parts = urlsplit(url)
    command = [sys.executable, "-m", __name__, str(parts.hostname), str(parts.port), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        try:
            yield f"http://127.0.0.1:{proxy.stdout.readline().strip()}"
        finally:
            proxy.kill()


async def _serve(host: str, port: int, seconds: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(
            _hand_on(reader, far_writer, seconds), _hand_on(far_reader, writer, 0.0)
        )

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _hand_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
) -> None:
    due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def write() -> None:
        while True:
            moment, data = await due.get()
            await asyncio.sleep(max(0.0, moment - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()

    writing = asyncio.create_task(write())
    with suppress(ConnectionError):
        while data := await reader.read(PIECE_BYTES):
            due.put_nowait((loop.time() + seconds, data))
    due.put_nowait((loop.time(), b""))
    with suppress(ConnectionError):
        await writing
    writer.close()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
