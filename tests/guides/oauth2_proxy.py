"""python -m tests.guides.oauth2_proxy --config FILE --cookie-refresh 1s: what docs/migrate/oauth2-proxy.md says of it.

For machines that have no oauth2-proxy; where there is one, the same tests are run with both. It knows the way to the
provider and back, the session cookie, /oauth2/auth, the headers for the upstream, and when to ask for fresh tokens.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
import time
import tomllib
from http import cookies
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import Request, urlopen

COOKIE = "_oauth2_proxy"
Headers = dict[str, str]


class Proxy(ThreadingHTTPServer):
    def __init__(self, config: dict[str, Any], refresh: float) -> None:
        host, _, port = config["http_address"].partition(":")
        super().__init__((host, int(port)), _Handler)
        self.config = config
        self.refresh = refresh  # seconds
        self.sessions: dict[str, dict[str, Any]] = {}
        self.began: dict[str, str] = {}  # state -> where to go back to
        self.discovery = _fetched(f"{config['oidc_issuer_url']}/.well-known/openid-configuration")

    def start(self, back: str) -> str:
        state = secrets.token_hex(8)
        self.began[state] = back
        asked = {"state": state, "redirect_uri": self.config["redirect_url"], "client_id": self.config["client_id"]}
        return f"{self.discovery['authorization_endpoint']}?{urlencode({'response_type': 'code', **asked})}"

    def callback(self, code: str, state: str) -> tuple[str, str]:
        """Return where to go back to, and the new session's cookie."""
        back = self.began.pop(state)
        tokens = self._tokens({"grant_type": "authorization_code", "code": code})
        payload = tokens["id_token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        ticket = secrets.token_hex(16)
        self.sessions[ticket] = {**claims, **tokens, "since": time.monotonic()}
        return back, ticket

    def session(self, ticket: str) -> dict[str, Any] | None:
        session = self.sessions.get(ticket)
        if session is not None and time.monotonic() - session["since"] > self.refresh:
            tokens = self._tokens({"grant_type": "refresh_token", "refresh_token": session["refresh_token"]})
            session |= {**tokens, "since": time.monotonic()}
        return session

    def _tokens(self, form: dict[str, str]) -> dict[str, Any]:
        return _fetched(self.discovery["token_endpoint"], urlencode(form).encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        given = cookies.SimpleCookie(self.headers.get("Cookie", ""))
        session = self.server.session(given[COOKIE].value) if COOKIE in given else None
        if path == "/oauth2/start":
            self._reply(302, {"Location": self.server.start(query.get("rd", ["/"])[0])})
        elif path == "/oauth2/callback":
            back, ticket = self.server.callback(query["code"][0], query["state"][0])
            self._reply(302, {"Location": back, "Set-Cookie": f"{COOKIE}={ticket}; Path=/; HttpOnly; Secure"})
        elif path == "/oauth2/sign_out":
            self.server.sessions.pop(given[COOKIE].value, None)
            self._reply(302, {"Location": "/", "Set-Cookie": f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; Secure"})
        elif session is None:
            self._reply(401 if path == "/oauth2/auth" else 403, {})
        elif path == "/oauth2/auth":
            self._reply(202, self._answered(session))
        else:
            self._pass_on(session)

    def _answered(self, session: dict[str, Any]) -> Headers:
        if not self.server.config.get("set_xauthrequest"):
            return {}
        told = {"X-Auth-Request-User": session["sub"], "X-Auth-Request-Email": session["email"]}
        if self.server.config.get("pass_access_token"):
            told["X-Auth-Request-Access-Token"] = session["access_token"]
        return told

    def _pass_on(self, session: dict[str, Any]) -> None:
        headers = {
            "X-Forwarded-User": session["sub"],
            "X-Forwarded-Email": session["email"],
            "X-Forwarded-Groups": ",".join(session["groups"]),
            "X-Forwarded-Preferred-Username": session["preferred_username"],
        }
        upstream = self.server.config["upstreams"][0].rstrip("/") + self.path
        with urlopen(Request(upstream, headers=headers), timeout=10) as answer:
            told = {"Content-Type": answer.headers["Content-Type"], **self._answered(session)}  # 7.6 says it here too
            self._reply(answer.status, told, answer.read())

    def _reply(self, status: int, headers: Headers, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is http.server's
        """Say nothing."""


def _fetched(url: str, form: bytes | None = None) -> dict[str, Any]:
    with urlopen(url, form, timeout=10) as answer:
        return dict(json.loads(answer.read()))


if __name__ == "__main__":
    Proxy(tomllib.loads(Path(sys.argv[2]).read_text()), float(sys.argv[4].removesuffix("s"))).serve_forever()
