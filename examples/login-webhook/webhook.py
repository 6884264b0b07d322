"""The accounts of an existing application, as the gateway asks for them (docs/configuration.md#identity).

    python webhook.py                   answer on 127.0.0.1:8001
    python webhook.py password NAME     set a password, from standard input

POST /internal/login            {"username", "password", "device", "ip"}  ->  200 with the user, or 401
POST /internal/login/refresh    {"sub", "session_id"}                     ->  the same, at each refresh

Only the gateway may reach it. It is asked once for each sign-in, so that it can count wrong passwords itself.
"""

import hashlib
import hmac
import json
import os
import secrets
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ACCOUNTS = Path(os.environ.get("ACCOUNTS", "accounts.json"))  # {name: {"sub", "email", "roles", "password"}}
PORT = 8001
LARGEST = 65536  # bytes of a question


def hashed(password: str, salt: str) -> str:
    """scrypt with the parameters that OWASP gives (N = 2^17, r = 8, p = 1)."""
    digest = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=1 << 17, r=8, p=1, maxmem=1 << 28)
    return f"{salt}${digest.hex()}"


NOBODY = hashed("", secrets.token_hex(16))  # so that an unknown name takes as long as a wrong password


def accounts() -> dict[str, dict]:
    return json.loads(ACCOUNTS.read_text())


def login(question: dict) -> dict | None:
    """Return the user, None for a wrong name or password."""
    user = accounts().get(question["username"])
    known = user["password"] if user else NOBODY
    right = hmac.compare_digest(hashed(question["password"], known.partition("$")[0]), known)
    return answer(user) if user and right else None


def recheck(question: dict) -> dict | None:
    """Return the user as they are by now, None for one who is gone."""
    return next((answer(user) for user in accounts().values() if user["sub"] == question["sub"]), None)


def answer(user: dict) -> dict:
    """`credential_version` is another one after each change of the password, which ends the sessions of before."""
    version = hashlib.sha256(user["password"].encode()).hexdigest()[:16]
    claims = {"email": user["email"]}
    return {"sub": user["sub"], "roles": user["roles"], "claims": claims, "credential_version": version}


CALLS = {"/internal/login": login, "/internal/login/refresh": recheck}


class Webhook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # the gateway keeps its connections
    wbufsize = -1  # an answer is one write: whoever has read its status need not wait for the rest

    def do_POST(self) -> None:
        call = CALLS.get(self.path)
        size = int(self.headers.get("Content-Length", "0"))
        if call is None or size > LARGEST:
            self.close_connection = True
            self.reply(404 if call is None else 413, {})
            return
        user = call(json.loads(self.rfile.read(size)))
        self.reply(401, {}) if user is None else self.reply(200, user)

    def reply(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *words: object) -> None:
        """Say nothing: a log of sign-ins is the gateway's audit trail."""


def set_password(name: str, password: str) -> None:
    known = accounts()
    known[name]["password"] = hashed(password, secrets.token_hex(16))
    fresh = ACCOUNTS.with_suffix(".new")
    fresh.touch(0o600)
    fresh.write_text(json.dumps(known, indent=2))
    fresh.replace(ACCOUNTS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["password"]:
        set_password(sys.argv[2], sys.stdin.readline().rstrip("\n"))
    else:
        ThreadingHTTPServer(("127.0.0.1", PORT), Webhook).serve_forever()
