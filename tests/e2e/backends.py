"""What stands behind the gateway: nginx, and a raw backend that records every byte and can misbehave.

spot = backend.spot(lambda call: call.send(b"HTTP/1.1 204 No Content\\r\\n\\r\\n"))
ask(gateway.port, request("GET", spot.path("/raw")))
spot.calls(1)[0].headers
"""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.redis_server import free_port

TIMEOUT = 10.0  # seconds


class Call:
    """One request as a backend got it: `head` byte for byte, the body as far as it was read."""

    def __init__(self, connection: Connection, head: bytes) -> None:
        self.connection = connection
        self.head = head
        first, *lines = head.split(b"\r\n")
        method, target, self.version = first.decode("latin-1").split(" ")
        self.method = method
        self.target = target
        pairs = (line.split(b": ", 1) for line in lines if line)
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]
        self.raw_body = b""

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name.lower()]

    def get(self, name: str) -> str:
        """Return the one value of a header, '' where there is none."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} reached the backend {len(values)} times: {values}"
        return values[0] if values else ""

    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}

    def body(self) -> bytes:
        """Read the body to its end and return it decoded."""
        if self.get("transfer-encoding"):
            return self._chunked()
        return self._take(int(self.get("content-length") or 0))

    def send(self, data: bytes) -> None:
        self.connection.socket.sendall(data)

    def reply(self, body: bytes = b"", status: str = "200 OK", headers: bytes = b"") -> None:
        """Read the request to its end and answer with a Content-Length."""
        self.body()
        self.send(b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status.encode(), headers, len(body), body))

    def close(self) -> None:
        """End the connection; the loop that reads from it ends too."""
        self.connection.close()

    def gone(self) -> bool:
        """Wait for the gateway to end the connection; True if it did within the time limit."""
        try:
            while self.connection.receive():
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def _take(self, size: int) -> bytes:
        data = self.connection.exactly(size)
        self.raw_body += data
        return data

    def _chunked(self) -> bytes:
        pieces = []
        while True:
            line = self.connection.line()
            self.raw_body += line
            size = int(line, 16)
            if size:
                pieces.append(self._take(size))
            self.raw_body += self.connection.line()
            if not size:
                return b"".join(pieces)


Behaviour = Callable[[Call], object]


def steps(*behaviours: Behaviour) -> Behaviour:
    """Return a behaviour that does one thing after the other."""

    def behaviour(call: Call) -> None:
        for each in behaviours:
            each(call)

    return behaviour


def raw(data: bytes) -> Behaviour:
    """Return a behaviour: read the request, send these bytes."""
    return steps(Call.body, lambda call: call.send(data))


def until_gone(ended: threading.Event) -> Behaviour:
    """Return a behaviour: say nothing, and tell when the gateway has ended the connection."""

    def behaviour(call: Call) -> None:
        if call.gone():
            ended.set()

    return behaviour


class Connection:
    """One connection that the gateway made. `received` counts bytes, `served` requests."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.socket.settimeout(TIMEOUT)
        self.buffer = b""
        self.received = self.served = 0
        self.closed = False

    def receive(self) -> bytes:
        data = self.socket.recv(1 << 18)
        self.received += len(data)
        return data

    def more(self) -> None:
        data = self.receive()
        if not data:
            raise ConnectionError("the gateway ended the connection")
        self.buffer += data

    def head(self) -> bytes:
        """Return the next head without the empty line, b'' where the connection ended before it."""
        while b"\r\n\r\n" not in self.buffer:
            data = self.receive()
            if not data:
                return b""
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head

    def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self.more()
        line, mark, self.buffer = self.buffer.partition(b"\r\n")
        return line + mark

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            self.more()
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def close(self) -> None:
        self.closed = True
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def reset(self) -> None:
        """End the connection with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.closed = True
        self.socket.close()


class Spot:
    """A path of the backend with a behaviour of its own, and the calls that it got."""

    def __init__(self, name: str, behaviour: Behaviour) -> None:
        self.name = name
        self.behaviour = behaviour
        self._calls: list[Call] = []
        self._changed = threading.Condition()

    def path(self, prefix: str = "/raw") -> str:
        return f"{prefix}/{self.name}"

    def note(self, call: Call) -> None:
        with self._changed:
            self._calls.append(call)
            self._changed.notify_all()

    def calls(self, number: int = 0) -> list[Call]:
        """Wait until there were so many calls and return all."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._calls) >= number, TIMEOUT), "the backend was not called"
            return list(self._calls)

    def call(self) -> Call:
        """Return the one call that there was."""
        (call,) = self.calls(1)
        return call


class Backend:
    """A threaded server that looks a request's behaviour up by the last segment of its path."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.connections: list[Connection] = []
        self._spots: dict[str, Spot] = {}
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def received(self) -> int:
        """How many bytes the gateway has sent here, all connections together."""
        return sum(connection.received for connection in self.connections)

    def spot(self, behaviour: Behaviour = Call.reply) -> Spot:
        """Return a path that behaves like this; by default it answers 200 without a body."""
        spot = Spot(f"s{next(self._numbers)}", behaviour)
        self._spots[spot.name] = spot
        return spot

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            connection.close()
        for thread in (self._accepting, *self._threads):
            thread.join(TIMEOUT)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(accepted)
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            while not connection.closed:
                connection.socket.settimeout(None)  # a kept connection may be idle for as long as the tests run
                head = connection.head()
                if not head:
                    break
                connection.socket.settimeout(TIMEOUT)
                self._answer(connection, Call(connection, head))
        except OSError:
            pass  # the gateway, or the test, ended the connection
        finally:
            connection.close()

    def _answer(self, connection: Connection, call: Call) -> None:
        connection.served += 1
        spot = self._spots.get(call.target.partition("?")[0].rpartition("/")[2])
        if spot is None:
            call.reply(status="404 Not Found")
            return
        spot.note(call)
        spot.behaviour(call)


@contextmanager
def raw_backend() -> Iterator[Backend]:
    backend = Backend()
    try:
        yield backend
    finally:
        backend.close()


_NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 512; }}
http {{
    access_log off; default_type text/plain; keepalive_timeout 75s;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port}; root {directory}/files;
        location /app/ {{ return 200 "user=$http_x_auth_request_user groups=$http_x_auth_request_groups"; }}
        location /files/ {{ alias {directory}/files/; }}
    }}
}}
"""


class Nginx:
    """An nginx: /app/ answers with the identity headers that it got, /files/ with a file of `directory`/files."""

    def __init__(self, directory: Path) -> None:
        self.files = directory / "files"
        self.files.mkdir()
        self.port = free_port()
        config = directory / "nginx.conf"
        config.write_text(_NGINX.format(directory=directory, port=self.port))
        program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin")
        assert program is not None
        command = [program, "-p", str(directory), "-c", str(config), "-e", str(directory / "error.log")]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + TIMEOUT
        while not self._listens():
            assert self._process.poll() is None, (directory / "error.log").read_text()
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.01)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def nginx_backend() -> Iterator[Nginx]:
    with tempfile.TemporaryDirectory(prefix="tg-nginx-") as directory:
        nginx = Nginx(Path(directory))
        try:
            yield nginx
        finally:
            nginx.close()
