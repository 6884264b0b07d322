"""The same API behind a real uvicorn socket and over a real Redis."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn

from tests.api.support import Stack, bearer, code, stack
from tests.redis_server import RedisServer


class Server(uvicorn.Server):
    """A uvicorn server that tells when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def served(s: Stack) -> AsyncIterator[httpx.AsyncClient]:
    config = uvicorn.Config(s.app, host="127.0.0.1", port=0, lifespan="off", log_config=None, access_log=False)
    server = Server(config)
    task = asyncio.create_task(server.serve())
    await server.ready.wait()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield client
    finally:
        server.should_exit = True
        await task


def test_the_main_line_over_sockets(shared_redis: RedisServer) -> None:
    async def run() -> None:
        async with stack(shared_redis.url, store_clock=False) as s, served(s) as client:
            s.client, keep = client, s.client
            first = await s.login(device="phone")
            assert (await s.me(first["access_token"])).json()["sub"] == "u-1"
            second = (await s.refresh(first["refresh_token"])).json()
            assert (await s.me(second["access_token"])).status_code == 200
            out = await client.post("/auth/logout", headers=bearer(second["access_token"]))
            assert out.status_code == 204
            assert code(await s.me(first["access_token"])) == (401, "revoked_token")
            assert code(await s.refresh(second["refresh_token"])) == (400, "invalid_grant")
            s.client = keep

    asyncio.run(run())


def test_a_head_request_and_an_early_refusal_keep_the_connection_in_order(shared_redis: RedisServer) -> None:
    async def run() -> None:
        async with stack(shared_redis.url, store_clock=False) as s, served(s) as client:
            head = await client.head("/.well-known/jwks.json")
            assert (head.status_code, head.content) == (200, b"")
            large = await client.post("/auth/token", content=b"x" * 70000, headers={"content-type": "application/json"})
            assert code(large) == (413, "body_too_large")
            assert (await client.get("/.well-known/jwks.json")).status_code == 200

    asyncio.run(run())


def test_a_client_that_leaves_in_its_body_leaves_no_exception_in_the_log(
    shared_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def run() -> None:
        async with stack(shared_redis.url, store_clock=False) as s, served(s) as client:
            _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
            writer.write(b"POST /auth/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            writer.write(b"Content-Length: 50\r\n\r\n{")
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            assert (await client.get("/.well-known/jwks.json")).status_code == 200

    asyncio.run(run())
    assert [record for record in caplog.records if record.exc_info] == []


def test_an_outage_of_redis_is_a_503_and_heals(own_redis: RedisServer) -> None:
    async def run() -> None:
        async with stack(own_redis.url, store_clock=False) as s:
            body = await s.login()
            own_redis.stop()
            assert code(await s.me(body["access_token"])) == (503, "store_unavailable")
            assert code(await s.refresh(body["refresh_token"])) == (503, "store_unavailable")
            own_redis.start()
            async with asyncio.timeout(10):
                while (answer := await s.me(body["access_token"])).status_code == 503:  # noqa: ASYNC110  # nothing tells of a reconnect
                    await asyncio.sleep(0.05)
            assert code(answer) == (401, "revoked_token")  # it lost its data: it signs out and never back in

    asyncio.run(run())
