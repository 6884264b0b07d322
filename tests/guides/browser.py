"""A browser's cookies, and the nginx of a page."""

from __future__ import annotations

import socket
from urllib.parse import urljoin

import requests

from tests.e2e.harness import until
from tests.guides.terminal import Terminal, need

HERE = {"Sec-Fetch-Site": "same-origin"}


class Browser(requests.Session):
    """Keeps cookies and sends them, Secure ones too, as browsers do on a loopback address."""

    def __init__(self, origin: str) -> None:
        super().__init__()
        self.origin = origin

    def open(self, path: str, method: str = "GET", **headers: str) -> requests.Response:
        """Ask, and follow where it leads."""
        sent = {**headers, "Cookie": "; ".join(f"{each.name}={each.value}" for each in self.cookies)}
        url = urljoin(self.origin, path)
        answer = self.request(method, url, headers=sent, timeout=10, allow_redirects=False)
        return self.open(urljoin(url, answer.headers["Location"])) if answer.is_redirect else answer

    def copy(self) -> Browser:
        made = Browser(self.origin)
        made.cookies.update(self.cookies)
        return made


def move(browser: Browser) -> requests.Response:
    """Have the page's nginx exchange the session of before for one of the gateway's."""
    moved = browser.open("/session/move", "POST", **HERE)
    assert moved.status_code == 200, moved.text
    return moved


def begin_nginx(running: Terminal, config: str) -> None:
    """Start nginx with a page's configuration in its http section, as distributions include it."""
    need("nginx")
    here = running.directory
    spools = "".join(f"{name}_temp_path {here}/{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    (here / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {here}/nginx.pid; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {here}/body; {spools} include {here}/{config}; }}\n"
    )
    running.run(f"nginx -p {here} -c {here}/nginx.conf -e stderr >nginx.log 2>&1 &")


def wait_for(port: str) -> None:
    """Wait until something listens on a port of 127.0.0.1."""
    until(lambda: _listens(int(port)), f"{port} listens")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
