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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from gateway.app import Worker
from gateway.demo import WEBSOCKETS, introduction
from gateway.demo import backend as sample_backend
from gateway.drain import Server
from gateway.lifespan import Gateway
from gateway.reload import check_usable, merge, mounted, refused, why
from gateway.settings import Settings, SettingsError, load, sample
from gateway.supervisor import Supervisor
from gateway.telemetry import configure_logging
from gateway.tls import server_context
from gateway.tokens.keyring import generate, generate_refresh
from gateway.watch import Watch

DEMO_ALGORITHM = "ES256"
BACKLOG = 4096


class Inner(uvicorn.Server):
    """A second listener on the loop of the first; signals are the first one's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Beside:
    """Listeners that live with a worker: management, and in the demo the sample backend."""

    def __init__(self, more: Callable[[Worker], list[tuple[uvicorn.Config, socket.socket]]]) -> None:
        self._more = more
        self._servers: list[Inner] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, worker: Worker) -> None:
        for config, listener in self._more(worker):
            server = Inner(config)
            self._servers.append(server)
            self._tasks.append(asyncio.create_task(server.serve(sockets=[listener])))

    async def stop(self) -> None:
        for server in self._servers:
            server.should_exit = True
        await asyncio.gather(*self._tasks)


def serve(settings: Settings, config: Path | None, workers: int | None = None) -> int:
    """Serve until a signal ends it; return the exit status.

    SIGHUP has `config` and the environment read again, and so has a change of a mounted file.
    """
    current = Current(settings, config)  # first of all: what changes from here on is seen
    number = workers or settings.server.workers
    configure_logging(sys.stderr, settings.log.level)
    if settings.server.tls_cert and settings.server.tls_key:
        server_context(settings.server.tls_cert, settings.server.tls_key)  # one line where it is of no use
    environ = {**os.environ, "TOKENGATE_SERVER__WORKERS": str(number)}
    read = partial(load, config, environ)
    if number == 1:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the server has its own answer
        app = gateway(lambda: settings, read, None)
        current.of = lambda: app.worker.settings if app.worker is not None else settings
        app.watch = current.watch
        return _run(app, settings)
    run_directory = Path(tempfile.mkdtemp(prefix="tokengate-"))
    try:
        return _supervise(current, read, run_directory, number)
    finally:
        shutil.rmtree(run_directory, ignore_errors=True)


class Current:
    """The settings in use by now, `of()`, and a watch over the files that they name."""

    def __init__(self, settings: Settings, config: Path | None) -> None:
        self.of: Callable[[], Settings] = lambda: settings
        self.watch = Watch(lambda: mounted(self.of(), config))


@dataclass(frozen=True)
class Child:
    """Makes the application of one of several worker processes, in that process (called by uvicorn)."""

    settings: Settings = field(repr=False)
    read: Callable[[], Settings] = field(repr=False)
    run_directory: Path

    def __call__(self) -> Gateway:
        return gateway(lambda: self.settings, self.read, self.run_directory)


def _prepare(config: uvicorn.Config) -> None:
    """Begin a worker process. Raises ValueError where the certificate has come to be of no use meanwhile."""
    child: Any = config.app
    configure_logging(sys.stderr, child.settings.log.level)
    if config.ssl_certfile and config.ssl_keyfile:
        server_context(Path(config.ssl_certfile), Path(config.ssl_keyfile))


def _supervise(current: Current, read: Callable[[], Settings], run_directory: Path, number: int) -> int:
    settings, watch = current.of(), current.watch

    def reread(signalled: bool) -> Child | None:
        watch.begin()
        try:
            found = read()
            check_usable(found)
            merged = merge(settings, found)[0]
        except (SettingsError, ValueError, OSError) as error:
            if watch.refused(why(error)) or signalled:
                refused(why(error))
            return None
        watch.used()
        current.of = lambda: merged
        for name, value in _tls_options(merged).items():  # a worker that is started later opens these
            setattr(config, name, value)
        return Child(merged, read, run_directory)

    def changed() -> bool:
        return current.of().server.watch_files and watch.changed()

    options = _options(settings)
    config = uvicorn.Config(Child(settings, read, run_directory), factory=True, workers=number, **options)
    listener = listen(settings.server.bind.host, settings.server.bind.port)
    supervisor = Supervisor(config, [listener], Server, _prepare, reread, changed)
    supervisor.run()
    return STARTUP_FAILURE if supervisor.failed else 0


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
        settings = load(sample("demo.toml"), {**_moved(os.environ), **given})
        configure_logging(sys.stderr, settings.log.level)
        backend = next(iter(settings.routes[0].upstream))

        def beside(worker: Worker) -> list[tuple[uvicorn.Config, socket.socket]]:
            ws: Literal["none", "websockets-sansio"] = "websockets-sansio" if WEBSOCKETS else "none"
            return [(_plain(sample_backend, ws), listen(backend.host, backend.port))]

        app = gateway(lambda: settings, lambda: settings, None, beside)
        listener = listen(settings.server.bind.host, settings.server.bind.port)
        tokens, management = settings.tokens, str(settings.management.bind)
        sys.stdout.write(introduction(tokens.issuer, management, tokens.access_ttl))
        sys.stdout.flush()
        return _run(app, settings, listener)


def _moved(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a demo: one that was moved to another address issues its tokens there."""
    bind = environ.get("TOKENGATE_SERVER__BIND")
    return {**({"TOKENGATE_TOKENS__ISSUER": f"http://{bind}"} if bind else {}), **environ}


def gateway(
    settings: Callable[[], Settings],
    reread: Callable[[], Settings],
    run_directory: Path | None,
    more: Callable[[Worker], list[tuple[uvicorn.Config, socket.socket]]] | None = None,
) -> Gateway:
    """Return the application with its management listener, and with `more` beside it."""
    made = Gateway(settings, run_directory)
    made.reread = reread

    def listeners(worker: Worker) -> list[tuple[uvicorn.Config, socket.socket]]:
        bind = worker.settings.management.bind
        management = (_plain(worker.manage), listen(bind.host, bind.port, shared=run_directory is not None))
        return [management, *(more(worker) if more is not None else [])]

    beside = Beside(listeners)
    made.on_start, made.on_stop = beside.start, beside.stop
    return made


def _run(app: Gateway, settings: Settings, listener: socket.socket | None = None) -> int:
    listener = listener or listen(settings.server.bind.host, settings.server.bind.port)
    server = Server(uvicorn.Config(app, **_options(settings)))
    server.run(sockets=[listener])
    return 0 if server.started else STARTUP_FAILURE


def _options(settings: Settings) -> dict[str, Any]:
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
        **_tls_options(settings),
    }


def _tls_options(settings: Settings) -> dict[str, str | None]:
    cert, key = settings.server.tls_cert, settings.server.tls_key
    return {"ssl_certfile": str(cert) if cert else None, "ssl_keyfile": str(key) if key else None}


def _plain(app: Any, ws: Literal["none", "websockets-sansio"] = "none") -> uvicorn.Config:
    return uvicorn.Config(
        app,
        interface="asgi3",
        http="httptools",
        ws=ws,
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
