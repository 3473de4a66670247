"""A link to a node that a test can cut, and lead to another node, as a broken network and a load balancer would."""

import asyncio
from urllib.parse import urlsplit


class Wire:
    """A TCP proxy on a port of its own."""

    def __init__(self, address: str) -> None:
        self._target = urlsplit(address)
        self._down = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task] = set()
        self._server: asyncio.Server | None = None

    @classmethod
    async def to(cls, address: str) -> "Wire":
        """A wire to the node at an HTTP address."""
        wire = cls(address)
        wire._server = await asyncio.start_server(wire._connected, "127.0.0.1", 0)
        return wire

    @property
    def endpoint(self) -> str:
        """Where the SDK connects to."""
        port = self._server.sockets[0].getsockname()[1]
        return f"ws://127.0.0.1:{port}/connection/websocket"

    def block(self) -> None:
        """Ends every connection, and lets none through until `point`."""
        self._down = True
        for writer in self._writers:
            writer.transport.abort()

    def point(self, address: str) -> None:
        """From now on connections lead there."""
        self._target = urlsplit(address)
        self._down = False

    async def close(self) -> None:
        self._server.close()
        self.block()
        await asyncio.gather(*self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._lead(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._down:
            writer.transport.abort()
            return
        try:
            there = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        if self._down:
            # It was cut while it came about.
            writer.transport.abort()
            there[1].transport.abort()
            return
        ends = {writer, there[1]}
        self._writers |= ends
        await asyncio.gather(self._carry(reader, there[1]), self._carry(there[0], writer))
        self._writers -= ends

    @staticmethod
    async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()
