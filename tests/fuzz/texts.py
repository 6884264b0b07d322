"""What operators and other services write: configuration, users, webhooks, bodies; and what the log writes."""

from __future__ import annotations

import asyncio
import atexit
import io
import json
import logging
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request

from gateway.api import body
from gateway.errors import BodyTooLarge, IdentityUnavailable, InvalidRequest
from gateway.identity import UsersFile
from gateway.identity.provider import Identity
from gateway.identity.webhook import _identity
from gateway.settings import Settings, SettingsError, load
from gateway.settings.load import sample
from gateway.telemetry.logs import JsonFormatter
from gateway.telemetry.redaction import clean, clean_value
from gateway.tokens.signer import CannotMint
from tests.fuzz.target import target
from tests.fuzz.tokens import access_tokens, refresh_tokens, ring
from tests.tokens.support import NOW, SESSION, signer, verifier

# --- configuration ---

_LEAST = b'[tokens]\nissuer = "https://api.example.com"\naudience = "api"\n[identity]\nwebhook_url = "http://accounts:8080/login"\n'
_ROUTE = b'[[routes]]\npath = "/api/"\nupstream = ["http://orders:8080"]\nroles_any = ["user"]\n'
SECRET = "hunter2hunter2"


_HARD = [b"a = " + b"[" * 3000, b"a = " + b"{b=" * 1300, b"a = " + b"9" * 4400]  # RecursionError, ValueError of int()


def _settings() -> list[bytes]:
    secret = f'[redis]\nurl = "redis://u:{SECRET}@r/0"\n[management]\nadmin_token = "{SECRET}"\n'.encode()
    return [
        _LEAST + _ROUTE,
        *_HARD,
        _LEAST + secret,
        sample("gateway.toml").read_bytes(),
        sample("demo.toml").read_bytes(),
    ]


_TOML = [
    '"',
    "'",
    '"""',
    "'''",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ",",
    "\n",
    "#",
    ".",
    "\\",
    "\\u0000",
    "1979-05-27T07:32:00Z",
]
_TOML += [
    "[" * 50,
    "{a=" * 50,
    "9" * 50,
    "inf",
    "nan",
    "true",
    "0x",
    "\x00",
    "\r",
    "\xff",
    "[redis]",
    "[server]",
    "[[routes]]",
    "[tokens]",
]
_VALUES = [
    "-1",
    "0",
    '"250ms"',
    '"64KiB"',
    '"10s"',
    "bind",
    "path",
    "upstream",
    "url",
    "_env_file",
    "limits",
    "access_ttl",
]
TOML = [word.encode() for word in (*_TOML, *_VALUES)]


@cache
def _file() -> Path:
    made = tempfile.TemporaryDirectory(prefix="tg-fuzz-")
    atexit.register(made.cleanup)
    return Path(made.name) / "gateway.toml"


@target(_settings, TOML)
def settings_file(data: bytes) -> None:
    """A configuration is settings, or printable lines that say what is wrong."""
    path = _file()
    path.write_bytes(data)
    path.chmod(0o600)
    _load(path, {})


@target(
    lambda: [
        b"TOKENGATE_REDIS__URL=redis://a\nTOKENGATE_ROUTES__0__PATH=/a/",
        b'TOKENGATE_LIMITS={"login_per_ip": 3}\nTOKENGATE_TOKENS__ISSUER=x',
    ],
    [
        *TOML,
        b"TOKENGATE_",
        b"__",
        b"0",
        b"ROUTES",
        b"ISSUERS",
        b"REDIS",
        b"URL",
        b"_FILE",
        b"IDENTITY_HEADERS",
        b"null",
        b"CLIENTS",
    ],
)
def environment(data: bytes) -> None:
    """What the environment says is settings, or printable lines that say what is wrong."""
    lines = data.decode("utf-8", "surrogateescape").replace("\0", "").split("\n")
    environ = {name: value for name, mark, value in (line.partition("=") for line in lines) if mark}
    least = {"TOKENGATE_TOKENS__ISSUER": "https://a", "TOKENGATE_TOKENS__AUDIENCE": "api"}
    _load(None, {**least, "TOKENGATE_IDENTITY__WEBHOOK_URL": "http://a/b", **environ})


def _load(path: Path | None, environ: dict[str, str], *, guarded: bool = False) -> None:
    try:
        assert isinstance(load(path, environ), Settings)
    except SettingsError as error:
        assert error.lines
        for line in error.lines:
            assert line.isprintable()
            assert SECRET not in line or not guarded


@target(
    lambda: [b"redis://u:", b"redis+sentinel://a,b:1:", b"rediss://h/", b"\n", "\u2028".encode(), b"a" * 100],
    ["redis://", "://", "@", ":", "/", "?password=", "#", "%", ",", "[", "]"],
)
def settings_secret(data: bytes) -> None:
    """A secret that is misspelt, or stands where its key wants something else, is not told."""
    text = data.decode("utf-8", "ignore").replace("\0", "")
    least = {"TOKENGATE_TOKENS__ISSUER": "https://a", "TOKENGATE_TOKENS__AUDIENCE": "api"}
    for name in ("REDIS__URL", "REDIS__PASSWORD", "MANAGEMENT__ADMIN_TOKEN", "INTROSPECTION__CLIENTS"):
        for value in (text + SECRET, text + SECRET + "@host:6379/0", SECRET + text):
            _load(None, {**least, f"TOKENGATE_{name}": value}, guarded=True)
    _load(None, {**least, "TOKENGATE_IDENTITY__WEBHOOK_URL": f"http://u:{SECRET}@{text}"}, guarded=True)
    _load(None, {**least, "TOKENGATE_REDIS__PASSWORT": text + SECRET, "TOKENGATE_REDIS": text + SECRET}, guarded=True)


# --- users ---

_HASH = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY"
_USER = (
    f'[users.alice]\npassword = "{_HASH}"\nsub = "u-1"\nroles = ["user"]\nscope = "a b"\nclaims = {{ email = "a@b" }}\n'
)


@target(
    lambda: [
        _USER.encode(),
        *_HARD,
        sample("users.demo.toml").read_bytes(),
        _USER.replace("alice", "bob").encode() + _USER.encode(),
    ],
    [*TOML, b"[users.a]", b"password", b"$2b$12$", b"$scrypt$ln=16,r=8,p=1$", b"$argon2id$v=19$m=8,t=1,p=1$", b"1e400"],
)
def users_file(data: bytes) -> None:
    """A users file is users whose tokens can be minted, or one line that names no hash."""
    try:
        users = UsersFile.load(data)
    except ValueError as error:
        assert str(error).isprintable()
        assert "c29tZXNhbHQ" not in str(error)
        return
    for user in users._users.values():
        _mint(user.identity)


@target(
    lambda: [
        b'{"sub":"u-1","roles":["user"],"scope":"a b","claims":{"email":"a"},"credential_version":"1"}',
        b'{"sub":"u-1","claims":{"a":{"b":[1,2.5,null,true]}}}',
    ],
    '{ } [ ] " : , null true 1e400 -1 18446744073709551616 \\ud800 \\u0000 \\u2028 sub roles scope claims iss exp',
)
def webhook_answer(data: bytes) -> None:
    """What a webhook answers is an identity whose token can be minted, or no answer."""
    for asked in (None, "u-1"):
        try:
            identity = _identity(data, asked)
        except IdentityUnavailable as error:
            assert str(error).isprintable()
            continue
        assert asked in (None, identity.subject)
        _mint(identity)


def _mint(identity: Identity) -> None:
    try:
        made = signer(ring()).mint(
            subject=identity.subject,
            session_id=SESSION,
            counter=0,
            roles=identity.roles,
            scope=identity.scope,
            claims=identity.claims,
            now=NOW,
        )
    except CannotMint:
        raise AssertionError("accepted, and cannot be minted") from None
    read = verifier(ring()).verify(made.token.encode(), NOW)
    assert (read.sub, read.roles, read.scope) == (identity.subject, identity.roles, tuple(identity.scope.split()))


# --- bodies ---


def _given(data: bytes, kind: bytes) -> dict[str, str] | None:
    """Return the parameters of a body, None where it is refused."""

    async def receive() -> Any:
        return {"type": "http.request", "body": data, "more_body": False}

    request = Request({"type": "http", "method": "POST", "headers": [(b"content-type", kind)]}, receive)
    try:
        return _runner().run(body.parameters(request))
    except (InvalidRequest, BodyTooLarge):
        return None


@cache
def _runner() -> asyncio.Runner:
    made = asyncio.Runner()
    atexit.register(made.close)
    return made


@target(
    lambda: [b"grant_type=refresh_token&refresh_token=rt1.x", b"a=%C3%A9+b&c=&d", b"a=b;c=d"],
    "& = % + ; %00 %ff %C3%A9 %26 grant_type token",
)
def form_body(data: bytes) -> None:
    """A form is parameters that every reader finds once, or is refused."""
    given = _given(data, b"application/x-www-form-urlencoded")
    if given is None:
        return
    pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict")
    assert given == {name: value for name, value in pairs if value}
    assert len({name for name, _ in pairs}) == len(pairs)
    "".join([*given, *given.values()]).encode()


@target(
    lambda: [b'{"username":"alice","password":"caf\\u00e9","device":""}', b"{}", b'{"a":"\\ud83d\\ude00"}'],
    '{ } " : , \\ud800 \\u0000 null 1 {"a":"b","a":"c"} NaN [ ]',
)
def json_body(data: bytes) -> None:
    """A JSON body is an object of strings that names nothing twice, or is refused."""
    given = _given(data, b"application/json; charset=utf-8")
    if not given:
        return
    said = json.loads(data)
    assert given == {name: value for name, value in said.items() if value}
    assert all(type(value) is str for value in said.values())
    "".join([*given, *given.values()]).encode()


# --- logs ---


@cache
def _secrets() -> tuple[str, ...]:
    tokens = [token.decode() for token in (*access_tokens(), *refresh_tokens())]
    return (
        *tokens,
        _HASH,
        f" Bearer {'Ab1' * 9}",
        f"redis://user:{SECRET}@",
        f"password={SECRET}",
        f'"refresh_token": "{SECRET}"',
    )


@target(
    lambda: [b"sent ", b"Cookie: a=", b"GET /x?a=", b"-----BEGIN PRIVATE KEY-----", b'{"a": "', b"rt1.", b"eyJ"],
    [
        "eyJ",
        "rt1.",
        "Bearer ",
        "?",
        '"',
        "'",
        "\\",
        "\n",
        "-----BEGIN PRIVATE KEY-----",
        "cookie: ",
        "token=",
        "://",
        "@",
        "$2b$",
        "\u2028",
    ],
)
def redaction(data: bytes) -> None:
    """No secret survives, wherever in a line it stands; a line is one line of JSON, whatever it is given."""
    text = data.decode("utf-8", "surrogateescape")
    before, after = text[: len(text) // 2], text[len(text) // 2 :]
    for secret in _secrets():
        told = clean(before + secret + after, 1 << 16)
        assert told.encode()
        assert secret not in told or secret in before + after
    line = json.loads(_line(before + _secrets()[0] + after, {"field": [text, data], text or "x": data, "n": len(data)}))
    assert _secrets()[0] not in json.dumps(line)
    assert line["logger"] == "fuzz"
    json.dumps(clean_value({"a": [data, {text: data}]}, 100))


def _line(message: str, fields: dict[str, object]) -> str:
    record = logging.LogRecord("fuzz", logging.INFO, "", 0, message, (), None)
    for name, value in fields.items():
        if name not in vars(record):
            setattr(record, name, value)
    written = io.StringIO()
    written.write(JsonFormatter().format(record))
    assert "\n" not in written.getvalue()
    return written.getvalue()
