"""The requests of these tests as bytes, and what their answers gave. No connection is made here."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.harness import PASSWORD
from tests.e2e.wire import Answer, json_request, request

COOKIE = "__Secure-refresh"
SITE = {"Sec-Fetch-Site": "same-origin"}
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a login or a refresh gave; `refresh` is "" where a request that was refreshed in place got no cookie."""

    session: str
    access: str = field(repr=False)
    refresh: str = field(repr=False)


def sign_in(user: str, device: str = "", *, in_cookie: bool = False) -> bytes:
    content = {"username": user, "password": PASSWORD, "device": device}
    content["refresh_in"] = "cookie" if in_cookie else "body"
    return request("POST", "/auth/login", JSON | SITE, json.dumps(content).encode())


def refresh(token: str, *, in_cookie: bool = False) -> bytes:
    content = {"grant_type": "refresh_token"}
    if in_cookie:
        return request("POST", "/auth/token", JSON | SITE | cookie(token), json.dumps(content).encode())
    return json_request("POST", "/auth/token", content | {"refresh_token": token})


def renew(path: str, access: str, token: str) -> bytes:
    """A request to a route that refreshes by itself, with an access token that has expired."""
    return request("GET", path, cookie(token), token=access)


def sign_out(*, token: str = "", access: str = "", in_cookie: bool = False) -> bytes:
    if in_cookie:
        return request("POST", "/auth/logout", SITE | cookie(token))
    if token:
        return json_request("POST", "/auth/logout", {"refresh_token": token})
    return request("POST", "/auth/logout", token=access)


def revoke(token: str) -> bytes:
    """RFC 7009."""
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return request("POST", "/auth/revoke", kind, f"token={token}".encode())


def cookie(token: str) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={token}"}


def granted(answer: Answer) -> Grant:
    """Return the tokens of a token response, the refresh token from wherever it stands."""
    said = answer.json()
    assert ("refresh_token" in said) != bool(answer.all("set-cookie")), "the refresh token stands in one place"
    return Grant(said["session_id"], said["access_token"], said.get("refresh_token") or set_cookie(answer))


def renewed(answer: Answer) -> Grant | None:
    """Return the tokens that a request got which was refreshed in place, None where it got none."""
    access, token = answer.get("x-access-token"), set_cookie(answer)
    assert bool(access) == bool(token), "both tokens, or none"
    return Grant(str(claims(access)["sid"]), access, token) if access else None


def set_cookie(answer: Answer) -> str:
    """Return the refresh token that an answer sets, "" where it sets none or takes it away."""
    values: Sequence[str] = answer.all("set-cookie")
    found = [value.removeprefix(f"{COOKIE}=").partition(";")[0] for value in values if value.startswith(COOKIE)]
    return found[0] if found else ""


def claims(access: str) -> dict[str, Any]:
    payload = access.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
