"""An OpenID provider for tests: one user who is always signed in, authorization codes, tokens of ten minutes.

with provider() as idp:
    idp.name, idp.jwks_url
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.issuer import new_key
from tests.served import served
from tests.tokens.support import as_json, b64

CLIENT, API = "shop", "shop-api"


class Provider(ThreadingHTTPServer):
    """`codes` holds, for each authorization code that was given out, the nonce of its request.

    While it is `stale`, access tokens have expired when they come; those of a refresh are good.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key = new_key("RS256", "idp-1")
        self.codes: dict[str, str] = {}
        self.stale = False

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def name(self) -> str:
        return f"{self.origin}/realms/main"

    @property
    def jwks_url(self) -> str:
        return f"{self.name}/protocol/openid-connect/certs"

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.name,
            "authorization_endpoint": f"{self.name}/authorize",
            "token_endpoint": f"{self.name}/token",
            "userinfo_endpoint": f"{self.name}/userinfo",
            "jwks_uri": self.jwks_url,
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def tokens(self, form: dict[str, list[str]]) -> dict[str, Any]:
        refreshed = form["grant_type"] == ["refresh_token"]
        nonce = "" if refreshed else self.codes.pop(form["code"][0])
        past = {"iat": int(time.time()) - 660, "exp": int(time.time()) - 60} if self.stale and not refreshed else {}
        told = {"email": "alice@example.com", "email_verified": True, "groups": ["user"], "preferred_username": "alice"}
        return {
            "access_token": self.signed({"aud": API, "user": "u-1", **told, **past}),
            "id_token": self.signed({"aud": CLIENT, "nonce": nonce, **told}),
            "refresh_token": secrets.token_hex(8),
            "token_type": "Bearer",
            "expires_in": 600,
        }

    def signed(self, claims: dict[str, Any]) -> str:
        now = int(time.time())
        head = {"alg": "RS256", "kid": self.key.kid, "typ": "JWT"}
        told = {"iss": self.name, "sub": "u-1", "iat": now, "exp": now + 600, "jti": secrets.token_hex(8), **claims}
        message = b64(as_json(head)) + b"." + b64(as_json(told))
        return (message + b"." + b64(self.key.sign(message))).decode()


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path.endswith("/.well-known/openid-configuration"):
            self._reply(self.server.discovery())
        elif path.endswith("/certs"):
            self._reply({"keys": [self.server.key.jwk()]})
        elif path.endswith("/authorize"):
            code = secrets.token_hex(8)
            self.server.codes[code] = query.get("nonce", [""])[0]
            back = urlencode({"code": code, "state": query["state"][0]})
            self.send_response(302)
            self.send_header("Location", f"{query['redirect_uri'][0]}?{back}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._reply(self.server.tokens(form))

    def _reply(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is http.server's
        """Say nothing."""


@contextmanager
def provider() -> Iterator[Provider]:
    with served(Provider()) as made:
        yield made
