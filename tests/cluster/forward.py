"""A port of 127.0.0.1 that leads into a network namespace, so that kubectl, helm and Python need no root.

Run by path, with -I -S: forward.py LISTEN_FD HOST PORT. The socket that it listens on was made outside and keeps its
network namespace; every connection that it makes is of the namespace in which the program runs.
"""

import asyncio
import contextlib
import socket
import sys
from asyncio import StreamReader, StreamWriter


async def serve(listener: socket.socket, host: str, port: int) -> None:
    """Never returns."""

    async def connected(reader: StreamReader, writer: StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection(host, port)
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, there_writer))
                both.create_task(_pump(there_reader, writer))
        writer.close()

    server = await asyncio.start_server(connected, sock=listener)
    async with server:
        await server.serve_forever()


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        # NB: only this direction has ended; the answer to a request that ends with it is still to come
        writer.write_eof()
    except OSError:
        writer.transport.abort()


def main() -> None:
    """Never returns."""
    descriptor, host, port = sys.argv[1:]
    asyncio.run(serve(socket.socket(fileno=int(descriptor)), host, int(port)))


if __name__ == "__main__":
    main()
