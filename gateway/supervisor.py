"""Several worker processes that share one listening socket: started, watched, replaced, reloaded, ended.

The processes and the question whether they still answer are uvicorn's; what differs from its supervisor:
- SIGHUP, or a change of a mounted file, is passed on, so that workers take up new settings as they serve: no process
  is replaced, no connection ends, and the verified tokens and upstream connections of each stay warm.
- A worker that cannot start again does not take the others with it: it is tried again.
- Signals are met within TICK, and the end begins with the workers: the socket is closed here only when
  they hold it, so that a client is never left with a connection that nobody accepts.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from gateway.watch import LOOK_SECONDS

_LOG = logging.getLogger("gateway.supervisor")

TICK = 0.05  # seconds
WATCH_SECONDS = 0.5
PAUSE_SECONDS = 1.0  # between two starts of one worker
START_SECONDS = 60.0  # a worker that does not serve by then hangs

Make = Callable[[uvicorn.Config], uvicorn.Server]
Prepare = Callable[[uvicorn.Config], None]


class WorkerProcess(Process):
    """One worker. `prepare` is called first and `make` makes its server, both in the process itself."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], make: Make, prepare: Prepare) -> None:
        super().__init__(config, sockets)
        self._make = make
        self._prepare = prepare
        self.started_at = time.monotonic()
        self.reload_due = self.was_ready = False

    def look(self) -> bool:
        """Tell whether the worker has come to serve, without waiting for one that starts."""
        with suppress(OSError, EOFError):
            self.parent_conn.send(b"ping")
            while self.parent_conn.poll(0.01):
                self.was_ready = bool(self.parent_conn.recv()) or self.was_ready
        return self.was_ready

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = self._make(self.config)
        return self._server

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server has its own answer
        try:
            self._prepare(self.config)
        except ValueError as error:
            _LOG.error("the worker cannot start", extra={"reason": str(error)})
            sys.exit(STARTUP_FAILURE)
        super().target(sockets)


class Supervisor(Multiprocess):
    """Runs `config.workers` processes.

    `prepare` is called first in each; it raises ValueError that says why a worker cannot start. `on_reload` returns
    the application of workers to come, or None: no reload. It is told whether a signal asks for the reload, rather than
    `changed`, which is asked once in a while on a thread.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        sockets: list[socket.socket],
        make: Make,
        prepare: Prepare,
        on_reload: Callable[[bool], Any],
        changed: Callable[[], bool],
    ) -> None:
        super().__init__(config, sockets)
        self._make = make
        self._prepare = prepare
        self._on_reload = on_reload
        self._changed = changed
        self._has_changed = threading.Event()
        self._watched_at = 0.0
        self.failed = False

    def init_processes(self) -> None:
        self.processes = [self._start() for _ in range(self.processes_num)]

    def run(self) -> None:
        """Run until a signal ends it, or until none of the workers can start."""
        self.init_processes()
        threading.Thread(target=self._look, daemon=True).start()  # a stat may block where a mount hangs
        while not self.should_exit.wait(TICK):
            self.handle_signals()
            if self._has_changed.is_set():
                self._reload(signalled=False)
                self._has_changed.clear()
            if time.monotonic() - self._watched_at >= WATCH_SECONDS:
                self.keep_subprocess_alive()
                self._watched_at = time.monotonic()
        self.terminate_all()
        for listener in self.sockets:
            listener.close()
        self.join_all()

    def keep_subprocess_alive(self) -> None:
        for position, process in enumerate(self._workers()):
            if self.should_exit.is_set():
                return
            if self._is_well(process):
                self._pass_on_reload(process)
            else:
                self._replace(position, process)

    def handle_hup(self) -> None:
        self._reload(signalled=True)

    def _look(self) -> None:
        while not self.should_exit.wait(LOOK_SECONDS):
            if not self._has_changed.is_set() and self._changed():
                self._has_changed.set()

    def _reload(self, *, signalled: bool) -> None:
        app = self._on_reload(signalled)
        if app is not None:
            self.config.app = app
            for process in self._workers():
                process.reload_due = True
                self._pass_on_reload(process)

    def handle_ttin(self) -> None:
        self.processes_num += 1
        self.processes.append(self._start())

    def _workers(self) -> list[WorkerProcess]:
        return [process for process in self.processes if isinstance(process, WorkerProcess)]

    def _is_well(self, process: WorkerProcess) -> bool:
        if not process.process.is_alive():
            return False
        if process.look():
            return process.is_alive(self.config.timeout_worker_healthcheck)
        return time.monotonic() - process.started_at < START_SECONDS

    def _start(self) -> WorkerProcess:
        process = WorkerProcess(self.config, self.sockets, self._make, self._prepare)
        process.start()
        return process

    def _pass_on_reload(self, process: WorkerProcess) -> None:
        """Have a worker reload; one that is still starting does it once it serves."""
        if process.reload_due and process.look() and process.pid is not None:
            process.reload_due = False
            with suppress(ProcessLookupError):  # it has just died, and is seen to next
                os.kill(process.pid, signal.SIGHUP)

    def _replace(self, position: int, process: WorkerProcess) -> None:
        process.kill()  # it may hang
        process.join()
        if process.exitcode == STARTUP_FAILURE and not any(each.look() for each in self._workers()):
            _LOG.error("no worker can start")
            self.failed = True
            self.should_exit.set()
            return
        if time.monotonic() - process.started_at < PAUSE_SECONDS:
            return
        _LOG.error("a worker died and is replaced", extra={"pid": process.pid, "status": process.exitcode})
        self.processes[position] = self._start()
