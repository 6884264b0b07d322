"""What login and refresh cost: each as a load of wrk on a gateway whose limits are off."""

from __future__ import annotations

import time
from dataclasses import replace

import orjson

from benchmarks import gateway
from benchmarks.credentials import PASSWORD, USER
from benchmarks.measure import Load, Peer, Sample, run
from gateway.identity.passwords import hash_password, verify

SESSIONS = 64
LOGIN = "Login, 4 connections"
REFRESH = "Refresh, 32 connections"
_LOGIN = """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{body}'
"""
# Each connection takes the refresh token that has waited longest and puts its successor at the end.
_REFRESH = """local tokens = {{ {tokens} }}
local first, last = 1, #tokens
local headers = {{ ["Content-Type"] = "application/x-www-form-urlencoded" }}
function request()
  local token = tokens[first] or ""  -- one is lost with each refresh that fails, and counted as an error
  tokens[first] = nil
  first = first + 1
  return wrk.format("POST", "/auth/token", headers, "grant_type=refresh_token&refresh_token=" .. token)
end
function response(status, _, body)
  last = last + 1
  tokens[last] = string.match(body, '"refresh_token":"([^"]+)"')
end
"""


def login(peer: Peer, seconds: float, store: int) -> Sample:
    """Sign in over and over, from 4 connections."""
    body = orjson.dumps(USER).decode()
    return run(Load(LOGIN, "/auth/login", 4, _LOGIN.format(body=body)), _anonymous(peer), seconds, store)


def refresh(peer: Peer, seconds: float, store: int) -> Sample:
    """Refresh the tokens of several sessions over and over, from 32 connections."""
    tokens = [str(gateway.sign_in(peer.url)["refresh_token"]) for _ in range(SESSIONS)]
    script = _REFRESH.format(tokens=", ".join(f'"{token}"' for token in tokens))
    return run(Load(REFRESH, "/auth/token", 32, script), _anonymous(peer), seconds, store)


def hash_cost(times: int = 5) -> float:
    """Return the CPU seconds that one password's check takes by itself."""
    hashed = hash_password(PASSWORD)
    before = time.process_time()
    for _ in range(times):
        verify(hashed, PASSWORD)
    return (time.process_time() - before) / times


def _anonymous(peer: Peer) -> Peer:
    return replace(peer, headers={})
