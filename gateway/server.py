"""How the processes of the gateway are started and ended. uvicorn does sockets, workers and TLS.

Each process serves two listeners: the clients' through the data plane's protocol class, and management
through plain uvicorn on the same loop. Several workers share the clients' socket; each binds the management
address for itself, and the kernel picks one (SO_REUSEPORT), whose metrics are those of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from gateway.app import Gateway, Worker
from gateway.demo import backend as sample_backend
from gateway.demo import introduction
from gateway.settings import Settings, load, sample
from gateway.telemetry import configure_logging
from gateway.tokens.keyring import generate, generate_refresh

DEMO_ALGORITHM = "ES256"
CONFIG_PATH = "TOKENGATE_INTERNAL_CONFIG"
RUN_DIRECTORY = "TOKENGATE_INTERNAL_RUN"
BACKLOG = 4096


class Server(uvicorn.Server):
    """uvicorn's server, ending with status 0 when it was asked to end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle_exit)
        yield


class Inner(uvicorn.Server):
    """A second listener on the loop of the first; signals are the first one's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Beside:
    """Listeners that live with a worker: management, and in the demo the sample backend."""

    def __init__(self, more: Callable[[Worker], list[tuple[Any, socket.socket]]]) -> None:
        self._more = more
        self._servers: list[Inner] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, worker: Worker) -> None:
        for app, listener in self._more(worker):
            server = Inner(_plain(app))
            self._servers.append(server)
            self._tasks.append(asyncio.create_task(server.serve(sockets=[listener])))
        _on_signal(worker)

    async def stop(self) -> None:
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks)


def serve(settings: Settings, config: Path | None, workers: int | None = None) -> int:
    """Serve until a signal ends it; return the exit status. `config` is read again by each further process."""
    number = workers or settings.server.workers
    configure_logging(sys.stderr, settings.log.level)
    if number == 1:
        return _run(gateway(lambda: settings, None), settings)
    run_directory = tempfile.mkdtemp(prefix="tokengate-")
    os.environ[RUN_DIRECTORY] = run_directory
    if config is not None:
        os.environ[CONFIG_PATH] = str(config)
    try:
        options = _options(settings)
        supervised = uvicorn.Config("gateway.server:child", factory=True, workers=number, **options)
        listener = listen(settings.server.bind.host, settings.server.bind.port)
        Multiprocess(supervised, sockets=[listener]).run()
    finally:
        shutil.rmtree(run_directory, ignore_errors=True)
    return 0


def demo() -> int:
    """Serve the sample on this machine: embedded store, sample backend, keys that end with it. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="tokengate-demo-") as keys:
        for key in (generate(DEMO_ALGORITHM, time.time()), generate_refresh(time.time())):
            file = Path(keys) / key.name
            file.touch(mode=0o600)
            file.write_bytes(key.data)
        given = {
            "TOKENGATE_TOKENS__SIGNING_KEYS": keys,
            "TOKENGATE_IDENTITY__USERS_FILE": str(sample("users.demo.toml")),
        }
        settings = load(sample("demo.toml"), {**os.environ, **given})
        configure_logging(sys.stderr, settings.log.level)
        backend = next(iter(settings.routes[0].upstream))

        def beside(worker: Worker) -> list[tuple[Any, socket.socket]]:
            return [(sample_backend, listen(backend.host, backend.port))]

        app = gateway(lambda: settings, None, beside)
        sys.stdout.write(introduction(settings.tokens.issuer, str(settings.management.bind)))
        sys.stdout.flush()
        return _run(app, settings)


def child() -> Gateway:
    """Make the application of one of several worker processes (called by uvicorn in each)."""
    path = os.environ.get(CONFIG_PATH)
    settings = load(Path(path) if path else None, os.environ)
    configure_logging(sys.stderr, settings.log.level)
    return gateway(lambda: settings, Path(os.environ[RUN_DIRECTORY]))


def gateway(
    settings: Callable[[], Settings],
    run_directory: Path | None,
    more: Callable[[Worker], list[tuple[Any, socket.socket]]] | None = None,
) -> Gateway:
    """Return the application with its management listener, and with `more` beside it."""
    made = Gateway(settings, run_directory)

    def listeners(worker: Worker) -> list[tuple[Any, socket.socket]]:
        bind = worker.settings.management.bind
        management = (worker.management, listen(bind.host, bind.port, shared=run_directory is not None))
        return [management, *(more(worker) if more is not None else [])]

    beside = Beside(listeners)
    made.on_start, made.on_stop = beside.start, beside.stop
    return made


def _run(app: Gateway, settings: Settings) -> int:
    listener = listen(settings.server.bind.host, settings.server.bind.port)
    server = Server(uvicorn.Config(app, **_options(settings)))
    server.run(sockets=[listener])
    return 0 if server.started else 3


def _options(settings: Settings) -> dict[str, Any]:
    server = settings.server
    return {
        "http": "gateway.proxy.protocol:GatewayProtocol",
        "loop": "uvloop",
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "backlog": BACKLOG,
        "timeout_graceful_shutdown": max(1, round(server.drain_timeout)),
        "ssl_certfile": str(server.tls_cert) if server.tls_cert else None,
        "ssl_keyfile": str(server.tls_key) if server.tls_key else None,
    }


def _plain(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a listening socket. Raises OSError that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from None
    listener.set_inheritable(True)
    return listener


def _on_signal(worker: Worker) -> None:
    """Tell a worker at the signal that it drains, so that readyz says so while requests finish."""
    before = signal.getsignal(signal.SIGTERM)

    def drain(number: int, frame: Any) -> None:
        worker.plane.draining = True
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGTERM, drain)
