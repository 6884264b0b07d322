"""Which server is the primary: what the sentinels say (redis.io/docs, "Sentinel client spec").

All are asked at once. What most of them name is taken as soon as no other can have more; what a few name, when
the others stay silent. A sentinel that was cut off may name the primary of yesterday, so that the caller has to
verify the role, and to ask again while all is well.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.sessions.connections import TcpConnection, ask, pooled, tcp_options
from gateway.sessions.endpoint import Address, Endpoint

logger = logging.getLogger(__name__)

_GRACE = 0.05  # seconds that the others have once one has answered


class Sentinels:
    """The sentinels of an endpoint. `timeout` bounds a question, in seconds."""

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._task: asyncio.Task[Address] | None = None

    async def primary(self) -> Address:
        """Return where the primary is; the endpoint remembers it. Raises ConnectionError where no sentinel knows."""
        if self._task is None or self._task.done():  # one question for all connections that are being made
            self._task = asyncio.get_running_loop().create_task(self._ask_all())
        return await asyncio.shield(self._task)

    async def _ask_all(self) -> Address:
        nodes = self._endpoint.nodes
        tasks = {asyncio.ensure_future(self._ask(node)) for node in nodes}
        try:
            address = await self._elect(tasks, len(nodes))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if address is None:
            raise ConnectionError("no sentinel names a primary")
        self._endpoint.found.primary = address
        return address

    async def _elect(self, tasks: set[asyncio.Task[Address | None]], voters: int) -> Address | None:
        votes: Counter[Address] = Counter()
        waiting = set(tasks)
        while waiting:
            done, waiting = await asyncio.wait(
                waiting, timeout=_GRACE if votes else None, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            votes.update(address for task in done if (address := task.result()) is not None)
            if votes and votes.most_common(1)[0][1] * 2 > voters:
                break
        return votes.most_common(1)[0][0] if votes else None

    async def _ask(self, node: Address) -> Address | None:
        """Return what one sentinel names; None where it does not answer or names none."""
        endpoint = self._endpoint
        try:
            reply = await ask(
                node,
                endpoint,
                endpoint.sentinel_auth,
                self._timeout,
                "SENTINEL",
                "GET-MASTER-ADDR-BY-NAME",
                endpoint.service,
            )
            return _address(reply)
        except Exception as error:
            logger.debug("redis: sentinel %s: %s", node, type(error).__name__)
            return None


def _address(reply: Any) -> Address | None:
    if reply is None:
        return None
    host, port = reply
    return Address(host.decode(), int(port))


class PrimaryConnection(TcpConnection):
    """A connection to the server that the sentinels name, if it says that it is a primary."""

    def __init__(self, *, sentinels: Any, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options)

    async def _connect(self) -> None:
        self.host, self.port = await self._sentinels.primary()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)
        await self.send_command("HELLO", 2, check_health=False)
        reply = await self.read_response()
        if not isinstance(reply, list) or b"master" not in reply[1::2]:
            raise RedisConnectionError("the server is no primary")

    async def _leave(self) -> None:
        self._endpoint.found.primary = None
        await super()._leave()


class PrimaryPool(BlockingConnectionPool):
    """Gives no connection to a server that is the primary no more."""

    async def ensure_connection(self, connection: Any) -> None:
        endpoint: Endpoint = self.connection_kwargs["endpoint"]
        if connection.is_connected and (connection.host, connection.port) != endpoint.found.primary:
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)


def primary_client(endpoint: Endpoint, timeout: float) -> Redis:
    options = tcp_options(endpoint, endpoint.auth, timeout) | {"db": endpoint.db}
    options["sentinels"] = Sentinels(endpoint, timeout)
    return pooled(PrimaryPool, timeout, connection_class=PrimaryConnection, **options)
