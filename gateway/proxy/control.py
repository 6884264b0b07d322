"""One request of the control plane, handed to the ASGI application by uvicorn's own cycle."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr

from gateway.errors import GatewayError, Headers
from gateway.proxy.ending import DISCARD
from gateway.proxy.head import Head

if TYPE_CHECKING:
    from gateway.proxy.protocol import GatewayProtocol

_LOG = logging.getLogger("gateway.proxy")
DEADLINE = 60.0  # the API bounds its own steps; this ends what is stuck all the same


class Cycle(RequestResponseCycle):
    """uvicorn's cycle, which also remembers the status that the application gave."""

    status = 0

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await super().send(message)


class ControlExchange:
    """Runs the ASGI application for one request on a connection of the data plane."""

    __slots__ = (
        "cycle",
        "discarded",
        "early",
        "granted",
        "head",
        "left",
        "protocol",
        "responded",
        "started",
        "task",
        "whole",
    )

    cycles = Cycle
    context: Context | None = None  # of the task; None is a copy of the present one

    def __init__(self, protocol: GatewayProtocol, head: Head) -> None:
        self.protocol = protocol
        self.head = head
        self.left = head.fields.length if head.fields.length > 0 else 0
        self.whole = self.responded = False
        self.cycle: Cycle | None = None
        self.early: list[bytes] = []
        self.task: asyncio.Task[None] | None = None
        self.discarded = 0
        self.granted: Headers = []  # for pages of other origins (cross_origin.py)
        self.started = perf_counter()

    def start(self) -> None:
        protocol = self.protocol
        if protocol.flow is None:
            protocol.flow = FlowControl(protocol.transport)
        self.cycle = self._make_cycle(protocol.flow)
        for piece in self.early:
            self._feed(piece)
        self.early = []
        if self.whole:  # before the application asks, who would wait for a message that has come
            self.cycle.more_body = False
            self.cycle.message_event.set()
        self.task = task = protocol.loop.create_task(self.cycle.run_asgi(protocol.app), context=self.context)
        protocol.server_state.tasks.add(task)
        task.add_done_callback(protocol.server_state.tasks.discard)
        protocol.wait_for(DEADLINE)

    def _make_cycle(self, flow: FlowControl) -> Cycle:
        expecting = any(n.lower() == b"expect" and v.lower() == b"100-continue" for n, v in self.head.fields.headers)
        return self.cycles(
            scope=self._scope(),
            transport=self.protocol.transport,
            flow=flow,
            logger=_LOG,
            access_logger=_LOG,
            access_log=False,
            default_headers=[*self.protocol.server_state.default_headers, *self.granted],
            message_event=asyncio.Event(),
            expect_100_continue=expecting,
            keep_alive=self.head.keep_alive and self.head.http11 and not self.protocol.plane.draining,
            on_response=self._answered,
        )

    def _scope(self) -> Any:
        head, protocol = self.head, self.protocol
        client, source = protocol.peer, protocol.source(head.fields)
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1" if head.http11 else "1.0",
            "method": head.method.decode("ascii"),
            "scheme": protocol.scheme.decode(),
            "path": unquote(head.path.decode("ascii")),
            "raw_path": head.path,
            "query_string": head.query[1:],
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in head.fields.headers],
            "client": (source.address, client[1] if client else 0),
            "server": get_local_addr(protocol.transport),
            "state": {"peer": protocol.client_host, "trusted": protocol.trusted, "scheme": source.scheme.decode()},
        }

    def body(self, data: bytes) -> None:
        if self.left:
            self.left -= len(data)
        if self.responded:
            self.discarded += len(data)
            if self.discarded > DISCARD:
                self.protocol.close_gracefully()
        elif self.cycle is None:
            self.early.append(data)
            self.protocol.pause_reading()
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        cycle = self.cycle
        if cycle is None:
            return
        cycle.body += data
        if len(cycle.body) > HIGH_WATER_LIMIT:
            cycle.flow.pause_reading()
        cycle.message_event.set()

    def end(self) -> None:
        self.whole = True
        if self.responded:
            self._finish()
        elif self.cycle is not None:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _answered(self) -> None:
        self.responded = True
        protocol = self.protocol
        meter = protocol.plane.control_meter
        if meter is not None and self.cycle is not None:
            meter.done(self.cycle.status, perf_counter() - self.started)
        if self.whole:
            self._finish()
        elif self.cycle is not None and self.cycle.keep_alive and self.left <= DISCARD:
            self.cycle.flow.resume_reading()
            protocol.wait_for(protocol.plane.header_timeout)
        else:
            protocol.close_gracefully()

    def _finish(self) -> None:
        cycle = self.cycle
        keep = cycle is not None and cycle.keep_alive
        if cycle is not None:
            cycle.flow.resume_reading()
        self.protocol.finished(keep, self.protocol.loop.time())

    def client_gone(self) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def client_slow(self) -> None: ...

    def client_ready(self) -> None: ...

    def on_deadline(self) -> None:
        if self.responded:
            self.protocol.close_gracefully()
            return
        if self.task is not None:
            self.task.cancel()
        self.protocol.transport.abort()

    def broken(self, error: GatewayError) -> None:
        """The body is malformed: end the connection; what the application says cannot be told apart any more."""
        self.client_gone()
        if not self.responded and self.cycle is not None and not self.cycle.response_started:
            self.responded = True
            self.protocol.active = None
            self.protocol.refuse_connection(error, self.head)
        else:
            self.protocol.transport.abort()
