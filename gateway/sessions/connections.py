"""Connections of redis-py as they are needed here: to one server, to the primary of the day, for one question.

Each new connection reads the password and the TLS files as they are then. None stays with a server that says that it
may not be written to.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, ReadOnlyError
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.sessions.endpoint import Address, Credentials, Endpoint

MAX_CONNECTIONS = 64


def node_client(endpoint: Endpoint, address: Address, timeout: float) -> Redis:
    """Return a client of one server of an endpoint."""
    options = tcp_options(endpoint, endpoint.auth, timeout) | {"db": endpoint.db}
    options |= {"host": address.host, "port": address.port}
    return pooled(BlockingConnectionPool, timeout, connection_class=TcpConnection, **options)


async def ask(node: Address, endpoint: Endpoint, auth: Credentials, timeout: float, *command: Any) -> Any:
    """Return the reply of one server to one command, on a connection of its own. Raises what redis-py raises."""
    options = tcp_options(endpoint, auth, timeout)
    connection: Any = TcpConnection(host=node.host, port=node.port, **options)
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()
            await connection.send_command(*command)
            return await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)


class _Secret(CredentialProvider):
    """Gives redis-py user and password for each new connection."""

    def __init__(self, auth: Credentials) -> None:
        self._auth = auth

    def get_credentials(self) -> Any:
        try:
            username, password = self._auth.read()
        except (OSError, ValueError) as error:  # translated, so that redis-py closes what it had begun
            raise AuthenticationError(f"the password cannot be read: {type(error).__name__}") from None
        if not password:
            return ()
        return (username, password) if username else (password,)

    async def get_credentials_async(self) -> Any:
        return self.get_credentials()


class _LeavesReplicas:
    """Closes a connection whose server says that it may not be written to: a primary that was made a replica."""

    async def read_response(self, *args: Any, **more: Any) -> Any:
        reply = None
        try:
            reply = await super().read_response(*args, **more)  # type: ignore[misc]  # of the connection beside it
        except ReadOnlyError as error:
            await self._leave()
            raise RedisConnectionError(str(error)) from None
        if isinstance(reply, ReadOnlyError):
            await self._leave()
        return reply

    async def _leave(self) -> None:
        await self.disconnect(nowait=True)  # type: ignore[attr-defined]


class UnixConnection(_LeavesReplicas, UnixDomainSocketConnection):
    pass


class TcpConnection(_LeavesReplicas, Connection):
    """A connection by the TLS settings of now."""

    def __init__(self, *, endpoint: Endpoint, **options: Any) -> None:
        self._endpoint = endpoint
        super().__init__(**options)

    def _connection_arguments(self) -> Any:
        return {**super()._connection_arguments(), "ssl": self._endpoint.tls()}


def pooled(pool: type[BlockingConnectionPool], timeout: float, **options: Any) -> Redis:
    return Redis.from_pool(pool(max_connections=MAX_CONNECTIONS, timeout=timeout, **options))


def tcp_options(endpoint: Endpoint, auth: Credentials, timeout: float) -> dict[str, Any]:
    return options_of(auth, timeout) | {"endpoint": endpoint}


def options_of(auth: Credentials, timeout: float) -> dict[str, Any]:
    return {
        "credential_provider": _Secret(auth),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,  # spares two commands a connection
    }
