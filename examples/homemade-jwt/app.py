"""An application with JWT sessions of its own, on its way to tokengate (docs/migrate/homemade-jwt.md).

    python app.py                 answer on 127.0.0.1:8000
    python app.py user EMAIL      make a user, the password from standard input

What it always had: users in a table, access tokens that it signs and checks itself, refresh tokens in a table.

POST /login     {"email", "password"}   ->  {"access_token", "refresh_token"}
POST /refresh   {"refresh_token"}       ->  the same, the old refresh token is used up
POST /logout    {"refresh_token"}           with the access token
GET  /api/orders                            with the access token

What each step of the migration adds is marked with its number.
"""

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import sys
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlencode
from urllib.request import urlopen

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

STEP = int(os.environ.get("STEP", "0"))  # how far the migration has come
DATABASE = os.environ.get("DATABASE", "shop.db")
PORT = 8000
SECRET = b"a secret of at least 32 bytes, as it has always been"
ISSUER, AUDIENCE = "https://shop.example.com/legacy", "shop"
KEY, KID = Path("legacy.pem"), "legacy-1"
GATEWAY = "http://127.0.0.1:8080"
ACCESS_LIFE, REFRESH_LIFE = 900, 90 * 86400  # seconds
MOVED_AGAIN = 60  # seconds for which a refresh token may be handed in again: the answer may have been lost
LARGEST = 65536  # bytes of a body

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, email TEXT UNIQUE, password TEXT, role TEXT DEFAULT 'user');
CREATE TABLE IF NOT EXISTS refresh_tokens (digest TEXT PRIMARY KEY, user_id INTEGER, expires REAL, moved REAL);
"""


class Database:
    """One connection for each call."""

    def __enter__(self) -> sqlite3.Connection:
        self.connection = sqlite3.connect(DATABASE, timeout=10)
        self.connection.row_factory = sqlite3.Row
        return self.connection

    def __exit__(self, *error: object) -> None:
        with closing(self.connection):
            self.connection.commit() if error[0] is None else self.connection.rollback()


# --- what it always had ---


def hashed(password: str, salt: str) -> str:
    digest = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=1 << 15, r=8, p=1, maxmem=1 << 26)
    return f"{salt}${digest.hex()}"


NOBODY = hashed("", secrets.token_hex(16))  # so that an unknown name takes as long as a wrong password


def find_user(email: str, password: str) -> sqlite3.Row | None:
    with Database() as db:
        user = db.execute("SELECT * FROM users WHERE email = ?", (email,)).fetchone()
    known = user["password"] if user else NOBODY
    return user if hmac.compare_digest(hashed(password, known.partition("$")[0]), known) and user else None


def tokens(user: sqlite3.Row) -> dict:
    refresh_token = secrets.token_urlsafe(32)
    with Database() as db:
        row = (digest(refresh_token), user["id"], time.time() + REFRESH_LIFE)
        db.execute("INSERT INTO refresh_tokens (digest, user_id, expires) VALUES (?, ?, ?)", row)
    return {"access_token": signed(user), "refresh_token": refresh_token}


def digest(refresh_token: str) -> str:
    return hashlib.sha256(refresh_token.encode()).hexdigest()


def signed(user: sqlite3.Row) -> str:
    now = int(time.time())
    claims = {"sub": str(user["id"]), "role": user["role"], "email": user["email"], "exp": now + ACCESS_LIFE}
    if STEP < 1:
        return jwt.encode(claims, SECRET, "HS256")
    # Step 1: a key pair, and what tells this application's tokens from anyone else's.
    claims |= {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "jti": secrets.token_hex(16)}
    return jwt.encode(claims, private_key(), "ES256", headers={"kid": KID})


def verified(token: str) -> dict:
    """Return the claims of a token of either kind. Raises jwt.InvalidTokenError."""
    if jwt.get_unverified_header(token)["alg"] == "HS256":  # signed before step 1
        return jwt.decode(token, SECRET, ["HS256"])
    return jwt.decode(token, private_key().public_key(), ["ES256"], audience=AUDIENCE, issuer=ISSUER)


def login(question: dict, _: dict) -> tuple[int, dict]:
    user = find_user(question["email"], question["password"])
    return (200, tokens(user)) if user else (401, {})


def refresh(question: dict, _: dict) -> tuple[int, dict]:
    with Database() as db:
        found = db.execute(
            "DELETE FROM refresh_tokens WHERE digest = ? AND moved IS NULL RETURNING user_id, expires",
            (digest(question["refresh_token"]),),
        ).fetchone()
    user = user_by_id(found["user_id"]) if found and found["expires"] > time.time() else None
    return (200, tokens(user)) if user else (401, {})


def logout(question: dict, headers: dict) -> tuple[int, dict]:
    with Database() as db:
        db.execute("DELETE FROM refresh_tokens WHERE digest = ?", (digest(question["refresh_token"]),))
    if STEP >= 2:
        revoke(headers["authorization"].removeprefix("Bearer "))
    return 204, {}


def orders(_: dict, headers: dict) -> tuple[int, dict]:
    who = caller(headers)
    return (200, {"user": who["sub"], "role": who["role"], "orders": ["a kettle"]}) if who else (401, {})


def user_by_id(number: object) -> sqlite3.Row | None:
    with Database() as db:
        return db.execute("SELECT * FROM users WHERE id = ?", (number,)).fetchone()


# --- step 1: others can verify its tokens ---


def private_key() -> ec.EllipticCurvePrivateKey:
    if not KEY.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        KEY.touch(0o600)
        KEY.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return load_pem_private_key(KEY.read_bytes(), None)  # type: ignore[return-value]


def jwks(_: dict, __: dict) -> tuple[int, dict]:
    key = jwt.algorithms.ECAlgorithm.to_jwk(private_key().public_key(), as_dict=True)
    return 200, {"keys": [key | {"kid": KID, "use": "sig", "alg": "ES256"}]}


# --- step 2: what it revokes, the gateway revokes ---


def revoke(token: str) -> None:
    """Have the gateway refuse an access token from now on (RFC 7009). Raises OSError where it cannot."""
    form = urlencode({"token": token}).encode()
    urlopen(f"{GATEWAY}/auth/revoke", form, timeout=5).close()  # noqa: S310  # a constant address


# --- step 3: the gateway says who is calling ---


def caller(headers: dict) -> dict | None:
    """Return who is calling. From step 3 on nothing but the gateway reaches this server, so its headers are true."""
    if STEP >= 3:
        user, roles = headers.get("x-auth-request-user"), headers.get("x-auth-request-groups", "")
        return {"sub": unquote(user), "role": unquote(roles)} if user else None
    try:
        return verified(headers.get("authorization", "").removeprefix("Bearer "))
    except jwt.InvalidTokenError:
        return None


# --- step 4: the gateway's sign-in, by the users table and, once for each, by a refresh token of before ---


def webhook(question: dict, _: dict) -> tuple[int, dict]:
    name, password = question["username"], question["password"]
    kind, _, number = name.partition(":")
    user = moved(number, password) if kind == "session" else find_user(name, password)
    return (200, answer(user)) if user else (401, {})


def recheck(question: dict, _: dict) -> tuple[int, dict]:
    user = user_by_id(question["sub"])
    return (200, answer(user)) if user else (401, {})


def moved(number: str, refresh_token: str) -> sqlite3.Row | None:
    """Return the user whose refresh token this is, which from now on is used up here."""
    now = time.time()
    with Database() as db:
        found = db.execute(
            """UPDATE refresh_tokens SET moved = coalesce(moved, ?)
               WHERE digest = ? AND user_id = ? AND expires > ? AND coalesce(moved, ?) > ? RETURNING user_id""",
            (now, digest(refresh_token), number, now, now, now - MOVED_AGAIN),
        ).fetchone()
    return user_by_id(found["user_id"]) if found else None


def answer(user: sqlite3.Row) -> dict:
    """`credential_version` is another one after each change of the password, which ends the sessions of before."""
    version = hashlib.sha256(user["password"].encode()).hexdigest()[:16]
    claims = {"email": user["email"]}
    return {"sub": str(user["id"]), "roles": [user["role"]], "claims": claims, "credential_version": version}


# --- the server ---

CALLS = {
    ("POST", "/login"): login,
    ("POST", "/refresh"): refresh,
    ("POST", "/logout"): logout,
    ("GET", "/api/orders"): orders,
}
CALLS |= {("GET", "/jwks.json"): jwks} if STEP >= 1 else {}
CALLS |= {("POST", "/internal/login"): webhook, ("POST", "/internal/login/refresh"): recheck} if STEP >= 4 else {}


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        call, size = CALLS.get((self.command, self.path)), int(self.headers.get("Content-Length", "0"))
        if call is None or size > LARGEST:
            self.close_connection = True
            self.reply(404 if call is None else 413, {})
            return
        question = json.loads(self.rfile.read(size) or b"{}")
        self.reply(*call(question, {name.lower(): value for name, value in self.headers.items()}))

    do_POST = do_GET  # noqa: N815  # the name is http.server's

    def reply(self, status: int, content: dict) -> None:
        body = b"" if status == 204 else json.dumps(content, separators=(",", ":")).encode()
        self.send_response(status)
        if body:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *words: object) -> None:
        """Say nothing."""


def main() -> None:
    with Database() as db:
        db.executescript(SCHEMA)
    if sys.argv[1:2] == ["user"]:
        with Database() as db:
            row = (sys.argv[2], hashed(sys.stdin.readline().rstrip("\n"), secrets.token_hex(16)))
            db.execute("INSERT INTO users (email, password) VALUES (?, ?)", row)
    else:
        ThreadingHTTPServer(("127.0.0.1", PORT), Application).serve_forever()


if __name__ == "__main__":
    main()
