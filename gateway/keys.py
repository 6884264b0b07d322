"""The keys of a worker: read from their directory, taken up, and told of; and the files of that directory.

Which key signs is no event: it follows from the files and the time (tokens/schedule.py). What is told here is told
to operators.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from gateway.settings import Settings, SettingsError, read_keys
from gateway.telemetry import audit
from gateway.tokens import keyring
from gateway.tokens.keyfile import time_in
from gateway.tokens.keyring import REFRESH_SUFFIX, BadKey, KeyFile, Keyring, RefreshKeys
from gateway.tokens.refresh import RefreshTokens
from gateway.tokens.schedule import Kind, Lives, Stage, stages
from gateway.tokens.signer import Signer
from gateway.tokens.verifier import Verifier
from gateway.watch import Watch

_LOG = logging.getLogger("gateway.keys")
_FIRST, _LAST = (int(end.replace(microsecond=0, tzinfo=UTC).timestamp()) for end in (datetime.min, datetime.max))  # noqa: DTZ901

COLUMNS = ("KID", "ALGORITHM", "KIND", "BORN", "SIGNS FROM", "STATE", "REMOVABLE AFTER")


@dataclass(frozen=True, slots=True)
class Rings:
    """Both rings as they were read at once. `number` says in which order readings began."""

    number: int
    access: Keyring
    refresh: RefreshKeys

    def by_kind(self) -> dict[Kind, Keyring | RefreshKeys]:
        return {"access": self.access, "refresh": self.refresh}

    def signing_at(self, now: float) -> dict[Kind, str]:
        """Return the kids that sign at `now` (Unix seconds)."""
        return {kind: ring.signing_at(now).kid for kind, ring in self.by_kind().items()}


class Keys:
    """The keys in use, and who must hear of others. Raises BadKey."""

    def __init__(self, settings: Settings, now: float) -> None:
        self._settings = settings
        self._numbers = count()
        self.watch = Watch(lambda: [settings.tokens.signing_keys])
        self.rings = self.read()
        self._told = self.rings.signing_at(now)

    @property
    def keyring(self) -> Keyring:
        return self.rings.access

    @property
    def refresh(self) -> RefreshKeys:
        return self.rings.refresh

    def read(self) -> Rings:
        """Read the directory, on whatever thread, and change nothing. Raises BadKey."""
        number = next(self._numbers)
        self.watch.begin()
        try:
            return load(self._settings, key_files(self._settings), number)
        except SettingsError as error:
            raise BadKey("", "; ".join(error.lines)) from None

    def take(self, rings: Rings, signer: Signer, verifier: Verifier, refresh_tokens: RefreshTokens, now: float) -> None:
        """Sign and verify with these keys from here on; a reading that a later one has overtaken is dropped."""
        if rings.number < self.rings.number:
            return
        before, self.rings = self.rings, rings
        signer.reload(rings.access)
        verifier.reload(rings.access)
        refresh_tokens.reload(rings.refresh)
        self.watch.used()
        if self._settings.tokens.publish_before:
            _tell_of_late_keys(before, rings, now)
        self.tell(now)

    def drop(self, rings: Rings) -> None:
        """Leave a reading unused, because what was read with it is no use: the watch has it read again."""
        if rings.number > self.rings.number:
            self.watch.again()

    def tell(self, now: float) -> None:
        """Leave an audit line for a key that signs by now and did not when this was last called."""
        signing = self.rings.signing_at(now)
        for kind, kid in signing.items():
            if kid != self._told[kind]:
                audit("keys_reloaded", by="schedule", reason=f"{kid} signs {kind} tokens from now on")
        self._told = signing

    def report(self, now: float) -> dict[str, Any]:
        """Return the kids that sign, and those that will: from when, in Unix seconds."""
        signing = self.rings.signing_at(now)
        waiting = [
            {"kid": key.kid, "kind": kind, "signs_from": int(due)}
            for kind, ring in self.rings.by_kind().items()
            for key, due in ring.schedule.waiting(now)
        ]
        return {"signing": signing["access"], "refresh": signing["refresh"], "next": waiting}


def key_files(settings: Settings) -> list[KeyFile]:
    """Return the files of the key directory. Raises SettingsError."""
    return [KeyFile(*row) for row in read_keys(settings)]


def load(settings: Settings, files: list[KeyFile], number: int = 0) -> Rings:
    """Return both rings of these files. Raises BadKey."""
    tokens = settings.tokens
    access = Keyring.load(files, tokens.algorithm, tokens.publish_before)
    return Rings(number, access, RefreshKeys.load(files, tokens.publish_before))


def load_directory(settings: Settings) -> Rings:
    """Return both rings of the key directory. Raises SettingsError, or ValueError that names the directory."""
    return _load_named(settings, key_files(settings))


def listed(settings: Settings, now: float) -> list[tuple[Stage, KeyFile]]:
    """Return where each key is in its life at `now`, access keys first, of each kind the newest.

    Raises SettingsError, or ValueError that names the directory.
    """
    tokens, files, found = settings.tokens, key_files(settings), list[tuple[Stage, KeyFile]]()
    lives = Lives(tokens.access_ttl, tokens.leeway, tokens.refresh_ttl, tokens.session_ttl)
    needed: dict[Kind, float | None] = {"access": lives.after_access(), "refresh": lives.after_refresh()}
    for kind, ring in _load_named(settings, files).by_kind().items():
        by_kid = {_kid(file): file for file in files if file.name.endswith(REFRESH_SUFFIX) == (kind == "refresh")}
        arrived = {kid: file.modified for kid, file in by_kid.items()}
        for stage in stages(kind, ring, ring.schedule, needed[kind], arrived, now):
            found.append((stage, by_kid[stage.key.kid]))
    return found


def rows(settings: Settings, now: float) -> list[tuple[str, ...]]:
    """Return what `listed` finds, as texts under COLUMNS. Raises the same."""
    return [_row(stage, file) for stage, file in listed(settings, now)]


def _row(stage: Stage, file: KeyFile) -> tuple[str, ...]:
    key, undated = stage.key, time_in(file.name) is None
    born = moment(key.born) + (" (of the file)" if undated else "")
    begin, over = ("-" if at is None else moment(at) for at in (stage.signs_from, stage.removable_after))
    return (key.kid, key.algorithm, stage.kind, born, begin, stage.state, over)


def moment(seconds: float) -> str:
    """Return a time as text; one beyond the calendar, as a name or a file may say, as the first or last that it has."""
    within = min(max(int(seconds), _FIRST), _LAST)
    return f"{datetime.fromtimestamp(within, UTC):%Y-%m-%dT%H:%M:%SZ}"


def prune(settings: Settings, now: float, *, dry_run: bool) -> Iterator[Path]:
    """Remove the files of keys that no living token needs, and yield their paths. Raises as `listed`, and OSError."""
    for stage, file in listed(settings, now):
        if stage.state == "may be removed":
            path = settings.tokens.signing_keys / file.name
            if not dry_run:
                path.unlink()
            yield path


def make(directory: Path, algorithm: str | None, now: float) -> Iterator[Path]:
    """Write a signing key, and a refresh key where there is none, or (None) a refresh key alone; yield their paths.

    Raises OSError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    has_refresh = any(name.endswith(REFRESH_SUFFIX) and name[0] != "." for name in os.listdir(directory))
    if algorithm is not None:
        yield _write(directory, keyring.generate(algorithm, now))
    if algorithm is None or not has_refresh:
        yield _write(directory, keyring.generate_refresh(now))


def _write(directory: Path, file: KeyFile) -> Path:
    """Write a key that only we may read, whole at once. Raises FileExistsError rather than replace one."""
    path, part = directory / file.name, directory / f".{file.name}"  # a name with a dot is not looked at
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(file.data)
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _load_named(settings: Settings, files: list[KeyFile]) -> Rings:
    try:
        return load(settings, files)
    except BadKey as error:
        raise ValueError(f"tokens.signing_keys: {settings.tokens.signing_keys}: {error}") from None


def _kid(file: KeyFile) -> str:
    suffix = REFRESH_SUFFIX if file.name.endswith(REFRESH_SUFFIX) else file.name[-4:]
    return file.name.removesuffix(suffix)


def _tell_of_late_keys(before: Rings, rings: Rings, now: float) -> None:
    """A key that signs and has never been published fails where it is not known yet: in other replicas, in caches."""
    for kind, ring in rings.by_kind().items():
        kid = ring.signing_at(now).kid
        if before.by_kind()[kind].get(kid) is None:
            told = {"kid": kid, "kind": kind}
            _LOG.warning("a key came too late to be published before it signs: it signs at once", extra=told)
