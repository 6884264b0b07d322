"""The command line, on the real rooms."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result

import gateway
from gateway import cli
from gateway.identity import passwords
from gateway.parts import open_store, redis_endpoint
from gateway.sessions.connect import open_client
from gateway.sessions.store import NewSession, Session
from gateway.settings import load
from gateway.tokens.keyring import ALGORITHMS, KeyFile, Keyring, RefreshKeys, generate, generate_refresh
from tests.redis_server import RedisServer
from tests.tokens.foreign_support import document, jwk

CONFIG = """
[tokens]
issuer = "https://api.example.com"
audience = "api"
signing_keys = "{keys}"

[redis]
url = "{redis}"
prefix = "cli"
timeout = "2s"

[identity]
webhook_url = "http://accounts:8080/login"
"""


def run(*arguments: str, stdin: str = "", **variables: str) -> Result:
    return CliRunner(env=variables).invoke(cli.main, arguments, input=stdin)


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    logging.captureWarnings(False)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    assert run("keys", "new", "--out", str(path)).exit_code == 0
    return path


@pytest.fixture
def config(tmp_path: Path, keys: Path) -> Path:
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(keys=keys, redis="memory://"))
    return path


@pytest.fixture
def stored(tmp_path: Path, keys: Path, shared_redis: RedisServer) -> Path:
    """A configuration whose sessions outlive a command."""
    path = tmp_path / "gateway.toml"
    path.write_text(CONFIG.format(keys=keys, redis=shared_redis.url))
    return path


# --- the command itself ---


def test_help_names_every_command() -> None:
    told = run("--help").output
    assert all(name in told for name in ("check", "demo", "hash-password", "keys", "openapi", "schema", "serve"))


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").output == f"tokengate {gateway.__version__}\n"


def test_help_imports_no_room() -> None:
    program = "import sys, gateway.cli; print(sorted(m for m in sys.modules if m.startswith('gateway.')))"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "['gateway.cli', 'gateway.operators', 'gateway.terminal']"


def test_the_package_can_be_run() -> None:
    found = subprocess.run([sys.executable, "-m", "gateway", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.endswith(f"{gateway.__version__}\n")


# --- keys ---


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_new_key_signs_with_its_algorithm(tmp_path: Path, algorithm: str) -> None:
    result = run("keys", "new", "--alg", algorithm, "--out", str(tmp_path / "keys"))
    paths = [Path(line) for line in result.output.splitlines()]
    files = [KeyFile(path.name, path.read_bytes(), path.stat().st_mtime) for path in paths]
    assert Keyring.load(files, algorithm).signing.kid == paths[0].stem
    assert RefreshKeys.load(files).signing.kid == paths[1].name.removesuffix(".refresh.jwk")


def test_keys_are_for_their_owner_alone(keys: Path) -> None:
    assert [path.stat().st_mode & 0o777 for path in (keys, *keys.iterdir())] == [0o700, 0o600, 0o600]


def test_a_second_key_brings_no_second_refresh_key(keys: Path) -> None:
    result = run("keys", "new", "--out", str(keys))
    assert len(result.output.splitlines()) == 1
    assert len(list(keys.glob("*.pem"))) == 2
    assert len(list(keys.glob("*.refresh.jwk"))) == 1


def test_a_key_is_never_overwritten(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = next(keys.glob("*.pem"))
    before = path.read_bytes()
    monkeypatch.setattr("gateway.tokens.keyring.generate", lambda algorithm, now: KeyFile(path.name, b"other", now))
    result = run("keys", "new", "--out", str(keys))
    assert (result.exit_code, path.read_bytes()) == (1, before)
    assert str(path) in result.stderr


def test_an_algorithm_that_is_none_is_refused(tmp_path: Path) -> None:
    assert run("keys", "new", "--alg", "none", "--out", str(tmp_path)).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_refresh_key_is_made_alone(keys: Path) -> None:
    (made,) = run("keys", "new", "--refresh", "--out", str(keys)).output.splitlines()
    assert Path(made).name.endswith(".refresh.jwk")
    assert (len(list(keys.glob("*.pem"))), len(list(keys.glob("*.refresh.jwk")))) == (1, 2)
    assert Path(made).stat().st_mode & 0o777 == 0o600


def test_a_refresh_key_has_no_algorithm_to_choose(tmp_path: Path) -> None:
    result = run("keys", "new", "--refresh", "--alg", "ES256", "--out", str(tmp_path))
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "give either --alg or --refresh" in result.stderr


def test_a_key_is_never_half_written_under_its_name(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches the directory meets whole files alone, and a failure leaves nothing behind."""
    before = sorted(keys.iterdir())

    def refuse(path: Path, target: Path) -> None:
        assert path.name.startswith(".")
        assert path.stat().st_size > 100
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Path, "rename", refuse)
    assert run("keys", "new", "--out", str(keys)).exit_code == 1
    assert sorted(keys.iterdir()) == before


def aged(keys: Path, days: float, algorithm: str = "ES256") -> Path:
    """Add a signing key that was made so many days ago."""
    born = time.time() - 86400 * days
    file = generate(algorithm, born)
    path = keys / file.name
    path.touch(mode=0o600)
    path.write_bytes(file.data)
    os.utime(path, (born, born))
    return path


def states(config: Path, **variables: str) -> dict[str, tuple[str, str]]:
    """Return (state, removable after) by kid, as `keys list` prints them."""
    result = run("keys", "list", "--config", str(config), **variables)
    assert result.exit_code == 0, result.output
    head, *lines = result.output.splitlines()
    assert head.split("  ")[0] == "KID"
    at, end = head.index("STATE"), head.index("REMOVABLE AFTER")
    return {line.split()[0]: (line[at:end].strip(), line[end:].strip()) for line in lines}


def test_keys_are_listed_with_what_they_do_and_until_when(config: Path, keys: Path) -> None:
    oldest, older = aged(keys, 3), aged(keys, 1)
    young = next(path for path in keys.glob("*.pem") if path not in (oldest, older))
    refresh = next(keys.glob("*.refresh.jwk")).name.removesuffix(".refresh.jwk")
    told = states(config)
    assert {kid: state for kid, (state, _) in told.items()} == {
        young.stem: "published",
        older.stem: "signing",
        oldest.stem: "may be removed",
        refresh: "signing",
    }
    assert told[older.stem][1] == "-"
    followed = datetime.strptime(older.name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    wanted = followed + timedelta(minutes=5 + 10, seconds=10)  # publish_before, access_ttl, leeway
    assert told[oldest.stem][1] == f"{wanted:%Y-%m-%dT%H:%M:%SZ}"


def test_an_old_refresh_key_is_needed_for_as_long_as_its_sessions_may_live(config: Path, keys: Path) -> None:
    old = next(keys.glob("*.refresh.jwk"))
    born = time.time() - 86400 * 90
    for age, path in enumerate((generate_refresh(born), generate_refresh(born + 60))):
        (keys / path.name).write_bytes(path.data)
        (keys / path.name).chmod(0o600)
        os.utime(keys / path.name, (born + age, born + age))
    old.unlink()
    first, second = sorted(path.name.removesuffix(".refresh.jwk") for path in keys.glob("*.refresh.jwk"))
    told = states(config)
    assert (told[first][0], told[second][0]) == ("may be removed", "signing")  # after 60 days
    assert states(config, TOKENGATE_TOKENS__REFRESH_TTL="46d")[first][0] == "retired"
    assert states(config, TOKENGATE_TOKENS__REFRESH_TTL="46d", TOKENGATE_TOKENS__SESSION_TTL="80d")[first][0] == (
        "may be removed"
    )
    assert states(config, TOKENGATE_TOKENS__REFRESH_TTL="0", TOKENGATE_TOKENS__SESSION_TTL="0")[first] == (
        "retired",
        "-",
    )


def test_a_key_without_a_time_in_its_name_is_told_by_that_of_its_file(config: Path, keys: Path) -> None:
    old = aged(keys, 1)
    old.rename(keys / "plain.pem")
    born = f"{datetime.fromtimestamp(int((keys / 'plain.pem').stat().st_mtime), UTC):%Y-%m-%dT%H:%M:%SZ}"
    lines = run("keys", "list", "--config", str(config)).output.splitlines()
    assert [line.split()[0] for line in lines if f"{born} (of the file)" in line] == ["plain"]
    assert sum("(of the file)" in line for line in lines) == 1


@pytest.mark.parametrize("name", ["99991231T235959Z-f", "00010101T000000Z-f", "plain"])
def test_a_key_of_the_last_or_the_first_day_is_listed_checked_and_pruned_like_any(
    config: Path, keys: Path, name: str
) -> None:
    old, signing = aged(keys, 3), aged(keys, 1)
    odd = aged(keys, 2).rename(keys / f"{name}.pem")
    os.utime(odd, (1, 2**33 * 30))  # the year 10125
    told = states(config)
    assert told[signing.stem][0] == "signing"
    assert told[name][0] == ("may be removed" if name.startswith("0001") else "published")
    assert run("check", "--config", str(config)).exit_code == 0
    pruned = run("keys", "prune", "--config", str(config)).output
    assert str(odd if name.startswith("0001") else old) in pruned


def test_keys_that_never_sign_are_listed_as_that(config: Path, keys: Path) -> None:
    other = aged(keys, 5, "EdDSA")
    assert states(config)[other.stem] == ("verifies", "-")


def test_prune_removes_what_may_be_removed_and_nothing_else(config: Path, keys: Path) -> None:
    oldest, older, other = aged(keys, 3), aged(keys, 1), aged(keys, 9, "EdDSA")
    before = set(keys.iterdir())
    dry = run("keys", "prune", "--config", str(config), "--dry-run")
    assert (dry.exit_code, dry.output, set(keys.iterdir())) == (0, f"{oldest}\n", before)
    done = run("keys", "prune", "--config", str(config))
    assert (done.exit_code, done.output, set(keys.iterdir())) == (0, f"{oldest}\n", before - {oldest})
    again = run("keys", "prune", "--config", str(config))
    assert (again.exit_code, again.output) == (0, "")
    assert {older, other} <= set(keys.iterdir())


def test_a_key_that_would_be_pruned_but_cannot_be_is_one_line(
    config: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a mounted Secret."""
    oldest, _ = aged(keys, 3), aged(keys, 1)

    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    result = run("keys", "prune", "--config", str(config))
    assert result.exit_code == 1
    assert result.stderr == f"{config}: {oldest}: Read-only file system\n"


@pytest.mark.parametrize("command", ["list", "prune"])
def test_a_key_that_cannot_be_read_leaves_the_others_alone(config: Path, keys: Path, command: str) -> None:
    bad, _ = aged(keys, 3), aged(keys, 1)
    bad.write_text("no key")
    result = run("keys", command, "--config", str(config))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{config}: tokens.signing_keys: {keys}: '{bad.name}': ")
    assert bad.exists()


def test_check_says_which_key_waits_for_its_time(config: Path, keys: Path) -> None:
    old = aged(keys, 1)
    young = next(path for path in keys.glob("*.pem") if path != old)
    told = run("check", "--config", str(config)).output
    assert f"{old.stem} signs with ES256" in told
    assert re.search(rf"{young.stem} from \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ on", told)


def test_the_algorithms_are_those_of_the_keyring() -> None:
    assert cli.ALGORITHMS == ALGORITHMS


# --- hash-password ---


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_password_from_standard_input_is_hashed_without_its_newline(ending: str) -> None:
    result = run("hash-password", stdin=f" pass word {ending}")
    assert result.exit_code == 0
    assert passwords.verify(result.stdout.strip(), " pass word ")


@pytest.mark.parametrize("stdin", ["", "\n", "a\nb\n", "a" * 2000])
def test_what_is_no_password_is_refused(stdin: str) -> None:
    result = run("hash-password", stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "")


# --- check ---


def test_check_passes_a_good_configuration(config: Path) -> None:
    result = run("check", "--config", str(config))
    assert result.exit_code == 0, result.output
    assert all(line.startswith("ok ") for line in result.output.splitlines())
    assert "signs with ES256" in result.output


def test_the_file_can_be_named_by_the_environment(config: Path) -> None:
    assert run("check", TOKENGATE_CONFIG=str(config)).exit_code == 0


def test_check_tells_a_bad_key_of_the_file(config: Path) -> None:
    result = run("check", "--config", str(config), TOKENGATE_TOKENS__ACCES_TTL="5m")
    assert result.exit_code == 1
    assert result.stderr == (
        f"{config}: tokens.acces_ttl (TOKENGATE_TOKENS__ACCES_TTL): is not a key; did you mean tokens.access_ttl?\n"
    )


def test_check_tells_everything_that_is_wrong(config: Path, keys: Path, tmp_path: Path) -> None:
    next(keys.glob("*.pem")).write_text("no key")
    users = tmp_path / "users.toml"
    users.write_text("[users.alice]\n")
    result = run(
        "check",
        "--config",
        str(config),
        TOKENGATE_REDIS__URL="redis://127.0.0.1:1",
        TOKENGATE_IDENTITY__PROVIDER="users-file",
        TOKENGATE_IDENTITY__USERS_FILE=str(users),
        TOKENGATE_INTROSPECTION__CLIENTS='{"orders": "$argon2id$short"}',
    )
    wrong = [line for line in result.output.splitlines() if line.startswith("wrong")]
    assert result.exit_code == 1
    assert [line.split()[1] for line in wrong] == ["keys", "identity", "introspection", "redis"]
    assert "alice" in wrong[1]


def test_check_tells_a_certificate_that_is_none(config: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("tls.crt", "tls.key")]
    for path in paths:
        path.write_text("no certificate")
        path.chmod(0o600)
    found = run(
        "check",
        "--config",
        str(config),
        TOKENGATE_SERVER__TLS_CERT=str(paths[0]),
        TOKENGATE_SERVER__TLS_KEY=str(paths[1]),
    )
    assert found.exit_code == 1
    assert "server.tls_cert: does not go with server.tls_key" in found.output


def test_check_tells_an_authority_of_a_backend_that_is_none(config: Path, tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text("no certificate")
    route = {"path": "/api/", "upstream": ["https://orders"], "upstream_ca": str(ca)}
    found = run("check", "--config", str(config), TOKENGATE_ROUTES=json.dumps([route]))
    assert found.exit_code == 1
    assert f'routes.0.upstream_ca: "{ca}" is no use' in found.output


def test_check_never_shows_the_password_of_redis(config: Path) -> None:
    result = run("check", "--config", str(config), TOKENGATE_REDIS__URL="redis://:hunter2@127.0.0.1:1/0")
    assert result.exit_code == 1
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (document(jwk("ES256")), 0),
        (document({"kty": "EC"}), 1),
        (document(jwk("ES256", use="enc")), 1),
        (b'{"keys": []}', 1),
        (b"[]", 1),
        (b"<html>", 1),
        (document(jwk("ES256")) + b" " * (1 << 20), 1),
    ],
)
def test_check_reaches_the_keys_of_another_issuer(config: Path, body: bytes, status: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/jwks"
        issuer = {"issuer": "https://idp.example.com", "jwks_url": url, "audience": "api"}
        result = run("check", "--config", str(config), TOKENGATE_ISSUERS=json.dumps([issuer]))
        server.shutdown()
        thread.join()
    assert result.exit_code == status
    assert status == 0 or "issuers.0.jwks_url" in result.output
    assert status == 1 or "1 other issuers, 1 keys" in result.output


def test_check_says_that_another_issuer_is_not_there(config: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}/jwks"
    issuer = {"issuer": "https://idp.example.com", "jwks_url": url, "audience": "api"}
    result = run("check", "--config", str(config), TOKENGATE_ISSUERS=json.dumps([issuer]))
    assert result.exit_code == 1
    assert f"issuers.0.jwks_url: {url}: " in result.output


def test_check_of_the_environment_alone_names_what_is_missing() -> None:
    result = run("check")
    assert (result.exit_code, result.stderr.splitlines()) == (
        1,
        ["tokens.issuer: is missing", "tokens.audience: is missing"],
    )


# --- serve ---


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"TOKENGATE_LOG__LEVEL": "loud"}, "log.level (TOKENGATE_LOG__LEVEL)"),
        ({"TOKENGATE_TOKENS__SIGNING_KEYS": "/nowhere"}, 'tokens.signing_keys: "/nowhere" cannot be read'),
        ({"TOKENGATE_SERVER__WORKERS": "2"}, "server.workers: found 2; memory:// lives in one process"),
    ],
)
def test_serve_does_not_start_with_a_bad_configuration(config: Path, variables: dict[str, str], line: str) -> None:
    result = run("serve", "--config", str(config), **variables)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{config}: {line}")


def test_the_option_for_workers_wins_and_is_checked(config: Path) -> None:
    result = run("serve", "--config", str(config), "--workers", "2", TOKENGATE_SERVER__WORKERS="1")
    assert "server.workers: found 2" in result.stderr


def test_serve_hands_over_what_it_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def serve(*arguments: object) -> int:
        seen.extend(arguments)
        return 7

    monkeypatch.setattr("gateway.server.serve", serve)
    assert run("serve", "--config", str(config)).exit_code == 7
    assert seen == [load(config, {}), config, 1]


# --- sessions ---


async def _sign_in(config: Path, subject: str, *devices: str) -> list[Session]:
    settings = load(config, {})
    store = open_store(settings, open_client(redis_endpoint(settings), settings.redis.timeout))
    new = [NewSession(subject, device, "agent", "192.0.2.1", (), "", {}, "") for device in devices]
    made = [await store.create(session) for session in new]
    await store.close()
    return made


def test_sessions_are_listed(stored: Path) -> None:
    (session,) = asyncio.run(_sign_in(stored, "lister", "phone"))
    result = run("sessions", "list", "lister", "--config", str(stored))
    head, line = result.stdout.splitlines()
    assert head.split() == ["SESSION", "DEVICE", "IP", "CREATED", "LAST", "USED", "EXPIRES"]
    assert line.split()[:3] == [session.id, "phone", "192.0.2.1"]
    assert time.strftime("%Y-%m-%dT", time.gmtime(session.created_at)) in line


def test_a_device_cannot_speak_to_the_terminal(stored: Path) -> None:
    asyncio.run(_sign_in(stored, "attacker", "\x1b]0;owned\x07\u202e\nfake line"))
    listed = run("sessions", "list", "attacker", "--config", str(stored)).stdout
    assert len(listed.splitlines()) == 2
    assert all(char.isprintable() for char in listed.replace("\n", ""))


def test_a_session_is_revoked_once(stored: Path) -> None:
    one, other = asyncio.run(_sign_in(stored, "revoked", "phone", "laptop"))
    first = run("sessions", "revoke", one.id, "--config", str(stored))
    assert (first.exit_code, first.stdout) == (0, "1 ended\n")
    assert run("sessions", "revoke", one.id, "--config", str(stored)).stdout == "0 ended\n"
    left = run("sessions", "list", "revoked", "--config", str(stored)).output
    assert other.id in left
    assert one.id not in left


def test_all_sessions_of_a_user_are_revoked_with_an_audit_line(stored: Path) -> None:
    asyncio.run(_sign_in(stored, "everywhere", "phone", "laptop"))
    result = run("sessions", "revoke", "--subject", "everywhere", "--config", str(stored))
    assert result.stdout == "2 ended\n"
    line = json.loads(result.stderr)
    assert (line["event"], line["subject"], line["by"]) == ("sessions_revoked", "everywhere", "cli")


@pytest.mark.parametrize("arguments", [[], ["an-id", "--subject", "someone"]])
def test_what_to_revoke_must_be_said_once(config: Path, arguments: list[str]) -> None:
    assert run("sessions", "revoke", *arguments, "--config", str(config)).exit_code == 2


def test_a_store_that_does_not_answer_is_one_line(config: Path) -> None:
    result = run("sessions", "list", "x", "--config", str(config), TOKENGATE_REDIS__URL="redis://:pw@127.0.0.1:1")
    assert result.exit_code == 1
    assert re.fullmatch(r".*: Redis does not answer: .*\n", result.stderr)


def test_the_embedded_store_has_no_sessions_to_manage_from_outside(config: Path) -> None:
    result = run("sessions", "list", "x", "--config", str(config))
    assert result.exit_code == 1
    assert "redis.url: memory:// lives in the serving process" in result.stderr


# --- documents ---


def test_the_schema_is_json_that_names_its_dialect() -> None:
    document = json.loads(run("schema").output)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "tokens" in document["required"]


def test_the_api_description_is_json() -> None:
    assert "/auth/token" in json.loads(run("openapi").output)["paths"]
