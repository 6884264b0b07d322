"""docs/migrate/homemade-jwt.md: its commands do what it says, and nobody is signed out by any step."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.guides.terminal import ROOT, Terminal, commands, need, ports, steps, terminal

pytestmark = pytest.mark.timeout(240)  # pages start several servers, on a machine that may be busy

PAGE = "docs/migrate/homemade-jwt.md"
PORTS = ("8080", "9090", "6380", "8000")
CLIENT = ROOT / "clients" / "javascript" / "src" / "index.js"
UNTIL_STEP_4 = (
    "The application as it was",
    "Step 1: sign with a key pair",
    "Step 2: the gateway in front",
    "Step 3: the application goes by the headers",
    "Step 4: sign in at the gateway",
)


@pytest.fixture(scope="module")
def moved() -> Iterator[Terminal]:
    """Where the page stands after step 4."""
    with terminal(ports(*PORTS)) as running:
        for section in UNTIL_STEP_4:
            running.play(steps(PAGE, section))
        yield running


def update(running: Terminal, moved: str) -> None:
    with (
        closing(sqlite3.connect(running.directory / "build" / "migration" / "shop.db", timeout=10)) as database,
        database,
    ):
        database.execute(f"UPDATE refresh_tokens SET moved = {moved}")


def test_every_step_of_the_move_prints_what_the_page_says() -> None:
    todo = commands("docs/migrate/homemade-jwt.md")
    assert sum(bool(step.printed) for step in todo) >= 7
    with terminal(ports(*PORTS)) as running:
        running.play(todo)
        assert running.run("jobs -p") == ""


def test_a_refresh_token_of_before_makes_a_session_for_a_minute_and_rolled_back_it_is_as_it_was(
    moved: Terminal,
) -> None:
    again = "curl -s 127.0.0.1:8080/auth/login -H 'Content-Type: application/json' "
    again += '-d "{\\"username\\":\\"session:1\\",\\"password\\":\\"$NEW_R\\"}"'
    refreshed = 'curl -s 127.0.0.1:8080/refresh -d "{\\"refresh_token\\":\\"$NEW_R\\"}"'
    assert "access_token" in moved.run(again)
    assert json.loads(moved.run(refreshed)) == {}
    assert "invalid_credentials" in moved.run(again.replace("session:1", "session:2"))
    update(moved, "moved - 61")
    assert "invalid_credentials" in moved.run(again)
    update(moved, "NULL")
    assert "access_token" in moved.run(refreshed)


def test_a_page_with_the_javascript_client_takes_the_session_of_before_along_once(moved: Terminal) -> None:
    need("node")
    (module,) = (step for step in steps(PAGE) if step.title == "session.js")
    url = moved.here("http://127.0.0.1:8080")
    code = module.text.replace('"tokengate"', json.dumps(CLIENT.as_uri()))
    assert code.count("createTokengate()") == 1
    (moved.directory / "session.mjs").write_text(code.replace("()", f'({{ baseUrl: "{url}" }})', 1))
    tokens = moved.run("old_sign_in")
    (moved.directory / "page.mjs").write_text(f"""
const kept = new Map(Object.entries({tokens}));
globalThis.localStorage = {{ getItem: (name) => kept.get(name) ?? null, removeItem: (name) => kept.delete(name) }};
const {{ begin, client }} = await import("./session.mjs");
const orders = async () => (await client.fetch("/api/orders")).status;
console.log(JSON.stringify([await begin(), await orders(), kept.size, await begin()]));
await client.logout();
console.log(JSON.stringify([await begin(), await orders()]));
""")
    command = ["node", str(moved.directory / "page.mjs")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert ran.stdout == "[true,200,0,true]\n[false,401]\n", ran.stderr


def test_with_the_old_rs256_key_the_gateways_tokens_verify_where_that_key_is_known(moved: Terminal) -> None:
    key = rsa.generate_private_key(65537, 2048)
    keys = moved.directory / "build" / "migration" / "keys"
    (keys / "old.pem").touch(0o600)
    (keys / "old.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    moved.run("kill $GATEWAY; wait $GATEWAY")
    moved.run("TOKENGATE_TOKENS__ALGORITHM=RS256 tokengate serve --config gateway.toml 2>gateway.log & GATEWAY=$!")
    moved.run("until curl -sf 127.0.0.1:9090/readyz >/dev/null; do sleep 0.1; done")
    sign_in = """curl -s 127.0.0.1:8080/auth/login -H 'Content-Type: application/json' """
    sign_in += """-d '{"username":"alice@example.com","password":"correct horse"}'"""
    token = json.loads(moved.run(sign_in))["access_token"]
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": "old", "typ": "at+jwt"}
    assert jwt.decode(token, key.public_key(), ["RS256"], audience="shop")["sub"] == "1"
