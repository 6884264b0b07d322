"""The server of one process: how it meets signals, and how it ends without failing a request.

At SIGTERM or SIGINT, one after the other:

    at once              /readyz says 503, and every answer carries `Connection: close`
    drain_delay          new connections are still taken, while load balancers look away
    then                 nothing new is taken; a connection between two requests is kept for QUIET_SECONDS,
                         so that its next request, perhaps under way, is answered and not reset
    drain_timeout        what is in flight comes to its end
    then                 streams are ended, the rest is cut, and the process ends with status 0

A second SIGINT ends it at once. SIGHUP has the configuration read again (reload.py), and so has a change of a file,
where no supervisor looks at them (watch.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from gateway.app import Worker
from gateway.lifespan import Gateway
from gateway.proxy.protocol import GatewayProtocol
from gateway.reload import reload
from gateway.tls import Certificate
from gateway.watch import LOOK_SECONDS, Watch

_LOG = logging.getLogger("gateway.server")

QUIET_SECONDS = 1.0
ENDING_SECONDS = 0.5  # for the last words of streams: a WebSocket's close frame and its answer
TICK = 0.05


class Server(uvicorn.Server):
    """Serves a Gateway."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._reloading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._reload_again = self._signalled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._certificate: Certificate | None = None

    @property
    def gateway(self) -> Gateway:
        app: Gateway = self.config.loaded_app
        return app

    @property
    def worker(self) -> Worker | None:
        return self.gateway.worker

    @property
    def connections(self) -> list[GatewayProtocol]:
        found: set[Any] = self.server_state.connections
        return list(found)

    # --- signals ---

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        signal.signal(signal.SIGHUP, self._on_hangup)
        yield

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._loop is not None:  # not here and now: an answer that is being written must not say two things
            self._loop.call_soon_threadsafe(self._begin_drain)
        super().handle_exit(sig, frame)

    def _begin_drain(self) -> None:
        if self.config.loaded and self.worker is not None:
            self.worker.plane.draining = True

    def _on_hangup(self, number: int, frame: Any) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_signal)

    def _on_signal(self) -> None:
        self._signalled = True
        self._reload()

    def _reload(self) -> None:
        """Reload; where a reload is under way, once more after it."""
        self._reload_again = True
        if self._reloading is None and self.started and not self.should_exit:
            self._reloading = asyncio.get_running_loop().create_task(self._reload_all())

    async def _reload_all(self) -> None:
        try:
            while self._reload_again and self.worker is not None:
                self._reload_again = False
                if self._certificate is None and self.config.ssl is not None:
                    self._certificate = Certificate(self.config.ssl)
                watch = self.gateway.watch
                if watch is not None:
                    await asyncio.to_thread(watch.begin)
                if await reload(self.worker, self.gateway.reread, self._certificate, self._is_news):
                    self._signalled = False
                    if watch is not None:
                        watch.used()
                    for connection in self.connections:
                        connection.reloaded()
        finally:
            self._reloading = None

    def _is_news(self, reason: str) -> bool:
        """Whoever sends a signal is told each time; a file that stays as it is, once."""
        signalled, self._signalled = self._signalled, False
        watch = self.gateway.watch
        return (watch is None or watch.refused(reason)) or signalled

    async def _watch(self, watch: Watch) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            watched = self.worker is not None and self.worker.settings.server.watch_files
            if watched and self._reloading is None and watch.changed():
                self._reload()

    # --- the begin ---

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; management did so before, and may say that this replica is ready only from here on."""
        await super().startup(sockets)
        if self.started and self.worker is not None:
            self.worker.listening = True
            if self.gateway.watch is not None:
                self._watching = asyncio.get_running_loop().create_task(self._watch(self.gateway.watch))

    # --- the end ---

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        worker = self.worker
        if self._watching is not None:
            self._watching.cancel()
        if worker is not None:
            self._begin_drain()
            await self._until(lambda: False, worker.settings.server.drain_delay)
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        if worker is not None:
            await self._drain(worker, worker.settings.server.drain_timeout)
        for task in self.server_state.tasks:
            task.cancel()
        await self.lifespan.shutdown()

    async def _drain(self, worker: Worker, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        await self._until(self._nothing_open, min(QUIET_SECONDS, seconds))
        for connection in self.connections:
            connection.shutdown()
        await self._until(self._nothing_open, end - loop.time())
        if not self._nothing_open():
            _LOG.warning("ended with connections open", extra={"connections": len(self.connections)})
            worker.plane.streams.end_all("drain")
            await self._until(self._nothing_open, ENDING_SECONDS)
        for connection in self.connections:
            connection.transport.abort()
        await self._until(self._nothing_open, ENDING_SECONDS)

    def _nothing_open(self) -> bool:
        return not self.server_state.connections

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until a condition holds, for so long at most; not at all where the end is forced."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not (condition() or self.force_exit):  # not an event: what is waited for is polled, as uvicorn does
            left = end - loop.time()
            if left <= 0:
                return
            await asyncio.sleep(min(TICK, left))
