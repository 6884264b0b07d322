"""The commands of operators with access to Redis: sessions, the audit trail, tokens of admins.

Whoever lists or ends sessions leaves an audit line on standard error and, where `audit.stream` is on, in the stream:
`who` is the user of the operating system unless --actor says otherwise. It is not proven: that Redis could be reached
is the whole proof.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pwd
import re
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from gateway.terminal import (
    config_option,
    load_settings,
    plain,
    print_table,
    shared,
    time_text,
    told,
    with_client,
)

if TYPE_CHECKING:
    from gateway.sessions.store import Session, SessionStore
    from gateway.sessions.trail import AuditTrail, Entries
    from gateway.settings import Settings
    from gateway.telemetry.logs import AuditFields

T = TypeVar("T")

MAX_SAID = 200  # characters, as in the admin API
SHORTEST_TOKEN = 32  # characters: its digest alone is kept, which must tell nothing to who tries tokens
_PAGE = 500
_FOLLOW_SECONDS = 1.0
_ENTRY_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


def _line(context: click.Context, option: click.Parameter, value: str) -> str:
    if len(value) > MAX_SAID or not value.isprintable():
        raise click.BadParameter(f"at most {MAX_SAID} characters, none of them a control character, are allowed")
    return value.strip()


def _operator() -> str:
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    return f"{name}@{socket.gethostname()}"


_reason = click.option("--reason", default="", callback=_line, help="Why; it goes into the audit trail.")
_actor = click.option(
    "--actor", default=_operator, callback=_line, show_default="USER@HOST", help="Who; it goes into the audit trail."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group()
def sessions() -> None:
    """Who is signed in."""


@sessions.command("list")
@click.argument("subject")
@_as_json
@_reason
@_actor
@config_option
def list_sessions(subject: str, as_json: bool, reason: str, actor: str, path: Path | None) -> None:
    """List the sessions of a user, the most recently used first."""
    with told(path):

        async def ask(store: SessionStore) -> list[Session]:
            found = await store.list(subject)
            _audit("sessions_listed", subject=subject, number=len(found), who=actor, reason=reason)
            return found

        _show(_audited(shared(load_settings(path)), ask), as_json)


@sessions.command()
@click.argument("session_id")
@_as_json
@_reason
@_actor
@config_option
def show(session_id: str, as_json: bool, reason: str, actor: str, path: Path | None) -> None:
    """Show one session; exit status 1 where there is none."""
    with told(path):

        async def ask(store: SessionStore) -> Session | None:
            found = await store.get(session_id)
            whose, number = (found.subject, 1) if found else ("", 0)
            _audit("sessions_listed", session_id=session_id, subject=whose, number=number, who=actor, reason=reason)
            return found

        found = _audited(shared(load_settings(path)), ask)
        if found is None:
            raise ValueError("there is no such session")
        _show([found], as_json)


@sessions.command()
@click.argument("session_id", required=False)
@click.option("--subject", help="End all sessions of this user.")
@click.option("--jti", help="Revoke the access token with this id, and no session; needs --exp.")
@click.option("--exp", type=click.IntRange(1, 2**40), help="Until when that token is valid, in Unix seconds.")
@_reason
@_actor
@config_option
def revoke(
    session_id: str | None,
    subject: str | None,
    jti: str | None,
    exp: int | None,
    reason: str,
    actor: str,
    path: Path | None,
) -> None:
    """End one session, or all sessions of a user. To end what has ended already is no mistake."""
    if [session_id, subject, jti].count(None) != 2:
        raise click.UsageError("give one of a SESSION_ID, --subject and --jti")
    if (jti is None) != (exp is None):
        raise click.UsageError("--jti and --exp go together")
    said = {"who": actor, "reason": reason}
    with told(path):
        settings = shared(load_settings(path))
        if session_id is not None:
            number = _audited(settings, lambda store: _end(store, session_id, said))
        elif subject is not None:
            number = _audited(settings, lambda store: _end_all(settings, store, subject, said))
        else:
            _audited(settings, lambda store: _revoke_token(store, jti or "", exp or 0, said))
            click.echo("revoked")
            return
        click.echo(f"{number} ended")


@click.command()
@click.option("--since", default="", help='How far back, as in "1h" or "7d"; by default all there is.')
@click.option("--after", default="", help="Only what stands behind the entry with this id.")
@click.option("--subject", help="Only entries about this user.")
@click.option("--event", help='Only entries of this event, as in "refresh_reuse".')
@click.option("--follow", is_flag=True, help="Go on with what is written from now on, until interrupted.")
@config_option
def audit(since: str, after: str, subject: str | None, event: str | None, follow: bool, path: Path | None) -> None:
    """Print the audit trail that is kept in Redis (audit.stream), the oldest first, one JSON object a line."""
    if since and after:
        raise click.UsageError("give --since or --after")
    if after and not _ENTRY_ID.fullmatch(after):
        raise click.UsageError('--after is the id of an entry, as in "1767225600000-0"')
    wanted = {name: value for name, value in (("subject", subject), ("event", event)) if value is not None}
    with told(path):
        settings = shared(load_settings(path))
        start = f"({after}" if after else _since(since)

        async def run(client: Any) -> None:
            from gateway.parts import open_trail

            await _print_trail(open_trail(settings, client), start, wanted, follow)

        try:
            with_client(settings, run)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:  # whoever read the lines has enough
            _silence()


@click.command("hash-token")
def hash_token() -> None:
    """Print what management.admin_tokens has of an admin's token; read it from a prompt or from standard input."""
    with told():
        if sys.stdin.isatty():
            token = click.prompt("Token", hide_input=True, err=True)
        else:
            token = sys.stdin.read(4096).removesuffix("\n").removesuffix("\r")
        if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            raise click.ClickException(
                f"a token is {SHORTEST_TOKEN} printable ASCII characters or more, without a space, at random"
            )
        click.echo(f"sha256:{hashlib.sha256(token.encode()).hexdigest()}")


# --- what is done, and what is said of it ---


async def _end(store: SessionStore, session_id: str, said: dict[str, str]) -> int:
    from gateway.sessions.store import Unconfirmed

    found = await store.get(session_id)
    about = {"session_id": session_id, "subject": found.subject if found else "", **said}
    try:
        ended = int(await store.end(session_id))
    except Unconfirmed as error:
        _audit("session_revoked", number=int(error.done), outcome="unconfirmed", **about)
        raise
    _audit("session_revoked", number=ended, **about)
    return ended


async def _end_all(settings: Settings, store: SessionStore, subject: str, said: dict[str, str]) -> int:
    from gateway.sessions.store import Unconfirmed

    await _void_foreign(settings, store, subject)
    try:
        ended = len(await store.end_all(subject))
    except Unconfirmed as error:
        _audit("sessions_revoked", subject=subject, number=len(error.done), outcome="unconfirmed", **said)
        raise
    _audit("sessions_revoked", subject=subject, number=ended, **said)
    return ended


async def _void_foreign(settings: Settings, store: SessionStore, subject: str) -> None:
    """Void what another issuer gave a user whose sessions came by an exchange: it would give the next one (grants)."""
    for issuer in settings.issuers:
        if issuer.exchange and subject.startswith(issuer.namespace):
            from gateway.issuers import issuer_rules

            rules = issuer_rules(issuer)
            moment, life = rules.voided(time.time(), settings.tokens.leeway)
            await store.set_not_before(rules.subject_id(subject.removeprefix(issuer.namespace)), moment, life)


async def _revoke_token(store: SessionStore, token_id: str, expires_at: int, said: dict[str, str]) -> None:
    from gateway.sessions.store import Unconfirmed

    try:
        is_new = await store.revoke_token(token_id, expires_at)
    except Unconfirmed as error:
        _audit("token_revoked", token_id=token_id, number=int(error.done), outcome="unconfirmed", **said)
        raise
    _audit("token_revoked", token_id=token_id, number=int(is_new), **said)


def _audit(event: Any, **fields: str | int) -> None:
    from gateway.telemetry import audit

    audit(event, by="cli", **fields)


def _audited(settings: Settings, ask: Callable[[SessionStore], Coroutine[Any, Any, T]]) -> T:
    """Ask the store; write the audit lines that come of it to standard error, and into the stream if there is one."""
    from gateway.parts import open_store, open_trail
    from gateway.telemetry import audit_sink, configure_logging

    configure_logging(sys.stderr, settings.log.level)

    async def run(client: Any) -> T:
        entries: list[AuditFields] = []
        try:
            with audit_sink(entries.append):
                return await ask(open_store(settings, client))
        finally:
            if settings.audit.stream and entries:
                await _keep(open_trail(settings, client), entries)

    return with_client(settings, run)


async def _keep(trail: AuditTrail, entries: list[AuditFields]) -> None:
    """Put entries into the stream. What was done is done, so a failure is told and no more."""
    from gateway.errors import StoreUnavailable

    try:
        await trail.append([{**entry, "replica": socket.gethostname()} for entry in entries])
    except StoreUnavailable as error:
        click.echo(plain(f"the audit stream was not written: {error.reason}"), err=True)


# --- what is printed ---


def _show(found: list[Session], as_json: bool) -> None:
    if as_json:
        for session in found:
            click.echo(json.dumps(_described(session)))
        return
    print_table(
        ("SESSION", "DEVICE", "IP", "CREATED", "LAST USED", "EXPIRES"),
        [_row(session) for session in found],
    )


def _row(session: Session) -> tuple[str, ...]:
    times = (session.created_at, session.last_used_at, session.expires_at)
    return (session.id, session.device or "-", session.ip or "-", *map(time_text, times))


def _described(session: Session) -> dict[str, Any]:
    """Return what the admin API tells of a session, and whose it is."""
    names = ("subject", "id", "device", "user_agent", "ip", "created_at", "last_used_at", "expires_at")
    known = asdict(session)
    return {name: known[name] for name in names}


def _since(text: str) -> str:
    """Return the first id of the entries of a duration. Raises ValueError."""
    from gateway.settings.values import duration

    if not text:
        return "-"
    try:
        return str(max(0, round((time.time() - duration(text)) * 1000)))
    except ValueError as error:
        raise ValueError(f"--since: {error}") from None


async def _print_trail(trail: AuditTrail, start: str, wanted: dict[str, str], follow: bool) -> None:
    """Print entries page by page; where it follows, look again and again. Raises StoreUnavailable."""
    while True:
        page = await trail.read(start, _PAGE)
        for line in _lines(page, wanted):
            click.echo(line)
        if page:
            start = f"({page[-1][0]}"
        if len(page) < _PAGE:
            if not follow:
                return
            await asyncio.sleep(_FOLLOW_SECONDS)


def _lines(page: Entries, wanted: dict[str, str]) -> Iterator[str]:
    for entry_id, fields in page:
        if wanted.items() <= fields.items():
            yield json.dumps({"id": entry_id, **fields})


def _silence() -> NoReturn:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes
    sys.exit(0)
