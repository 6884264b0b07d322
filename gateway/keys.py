"""The keys of a worker: read from their directory, taken up, and told of.

Which key signs is no event: it follows from the files and the time (tokens/schedule.py). What is told here is told
to operators.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import count
from typing import Any

from gateway.settings import Settings, SettingsError, read_keys
from gateway.telemetry import audit
from gateway.tokens.keyring import REFRESH_SUFFIX, BadKey, KeyFile, Keyring, RefreshKeys
from gateway.tokens.refresh import RefreshTokens
from gateway.tokens.schedule import Kind, Lives, Stage, stages
from gateway.tokens.signer import Signer
from gateway.tokens.verifier import Verifier
from gateway.watch import Watch

_LOG = logging.getLogger("gateway.keys")


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


def listed(settings: Settings, files: list[KeyFile], now: float) -> list[tuple[Stage, KeyFile]]:
    """Return where each key is in its life at `now`, access keys first, of each kind the newest. Raises BadKey."""
    tokens, found = settings.tokens, list[tuple[Stage, KeyFile]]()
    lives = Lives(tokens.access_ttl, tokens.leeway, tokens.refresh_ttl, tokens.session_ttl)
    needed: dict[Kind, float | None] = {"access": lives.after_access(), "refresh": lives.after_refresh()}
    for kind, ring in load(settings, files).by_kind().items():
        by_kid = {_kid(file): file for file in files if file.name.endswith(REFRESH_SUFFIX) == (kind == "refresh")}
        arrived = {kid: file.modified for kid, file in by_kid.items()}
        for stage in stages(kind, ring, ring.schedule, needed[kind], arrived, now):
            found.append((stage, by_kid[stage.key.kid]))
    return found


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
