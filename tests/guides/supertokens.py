"""What tokengate meets of SuperTokens, in its shapes: a core, the backend SDK's JWK Set, access tokens of version 5.

Anything else is answered like an application's: with the headers that it got.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.guides.backend import Mirror, Server
from tests.issuer import new_key
from tests.served import served
from tests.tokens.support import ABSENT, as_json, b64

LIFE = 3600  # seconds, the core's default
ISSUER = "https://api.example.com/auth"


class SuperTokens(Server):
    """One user. Dynamic keys have a kid that begins with `d-`, static ones with `s-`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys = [new_key("RS256", "d-1732195200000"), new_key("RS256", "s-9d8f")]
        self.user = {"id": str(uuid.uuid4()), "emails": ["alice@example.com"], "timeJoined": 0, "tenantIds": ["public"]}
        self.password = "correct horse"
        self.roles = ["customer"]

    def token(self, **claims: Any) -> str:
        """Return an access token as createNewSession makes it, with more in its payload; ABSENT leaves out."""
        now = int(time.time())
        told = {
            "iat": now,
            "exp": now + LIFE,
            "sub": self.user["id"],
            "tId": "public",
            "rsub": self.user["id"],
            "sessionHandle": str(uuid.uuid4()),
            "refreshTokenHash1": secrets.token_hex(32),
            "parentRefreshTokenHash1": None,
            "antiCsrfToken": None,
            "iss": ISSUER,
            "st-role": {"v": self.roles, "t": now * 1000},
            "email": "alice@example.com",
            "aud": "shop",
            "uid": self.user["id"],
        } | claims
        head = {"kid": self.keys[0].kid, "typ": "JWT", "version": "5", "alg": "RS256"}
        message = b64(as_json(head)) + b"." + b64(as_json({name: v for name, v in told.items() if v is not ABSENT}))
        return (message + b"." + b64(self.keys[0].sign(message))).decode()

    def core(self, path: str, question: dict[str, Any], query: dict[str, list[str]]) -> dict[str, Any] | None:
        """Return the core's answer, None for an address that is not the core's."""
        if path == "/recipe/signin":
            right = (question["email"], question["password"]) == (self.user["emails"][0], self.password)  # type: ignore[index]
            return {"status": "OK", "user": self.user} if right else {"status": "WRONG_CREDENTIALS_ERROR"}
        if path == "/user/id":
            known = query["userId"] == [self.user["id"]]
            return {"status": "OK", "user": self.user} if known else {"status": "UNKNOWN_USER_ID_ERROR"}
        if path == "/recipe/user/roles":
            return {"status": "OK", "roles": self.roles}
        if path == "/auth/jwt/jwks.json":
            return {"keys": [key.jwk() for key in self.keys]}
        return None


class _Handler(Mirror):
    server: SuperTokens

    def answer(self, read: bytes) -> str | dict[str, Any] | None:
        address = urlsplit(self.path)
        question = json.loads(read) if read and self.headers["Content-Type"] == "application/json" else {}
        return super().answer(read) or self.server.core(address.path, question, parse_qs(address.query))


@contextmanager
def supertokens() -> Iterator[SuperTokens]:
    with served(SuperTokens()) as made:
        yield made
