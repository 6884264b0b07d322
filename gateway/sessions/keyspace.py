"""Every key, its partition and its TTL.

| key                               | type   | holds                                     | TTL ends with             |
|-----------------------------------|--------|-------------------------------------------|---------------------------|
| <prefix>:{p}:session:<sid>        | string | the session (record.py); its presence is  | the refresh token         |
|                                   |        | the whitelist of the live check           |                           |
| <prefix>:{p}:user:<sub>           | zset   | the user's sids by their end              | the latest of them        |
| <prefix>:{p}:revoked:<jti>        | string | 1: the blacklist                          | the token: exp + leeway   |
| <prefix>:{p}:not-before:<subject> | string | Unix seconds: what another issuer gave    | the longest life of such  |
|                                   |        | this subject at or before it is void      | a token                   |
| <prefix>:{p}:attempt:<kind>:<h>   | string | a rate limit's state                      | a full allowance          |
| <prefix>:{p}:fence                | string | 1: what WAIT waits for (wait_replicas)    | the wait                  |
| <prefix>:{0}:audit                | stream | the newest lines of the audit trail       | the newest of them, by    |
|                                   |        | (trail.py), where audit.stream is on      | audit.retention           |
| <prefix>:{p}:epoch                | string | since when the partition is whole, and    | none                      |
|                                   |        | how much has ended since (epochs.py)      |                           |

`p` is a hex digit, the partition, and `{p}` the hash tag of a Redis Cluster: all keys that one script
touches hash to one slot. A session lies in the partition of its user; its id begins with that digit
and so does the jti of every token minted for it: a token names its keys. An id of another maker, which
begins with `~`, falls into a partition by its hash.

Redis must not evict keys (`maxmemory-policy noeviction`): an evicted session signs a user out, but an
evicted blacklist entry would let a revoked token through.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import urlsafe_b64encode

SESSION_ID = re.compile(r"[0-9a-f][A-Za-z0-9_-]{15,63}", re.ASCII)

_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
DIGITS = "0123456789abcdef"  # the partitions


def encode(text: str) -> bytes:
    """Return the bytes of a key's part; a lone surrogate, which JSON can carry, is no error here."""
    return text.encode("utf-8", "surrogatepass")


def partition(subject: str) -> str:
    """Return the hex digit of the partition that a user, or any other text, falls into."""
    return hashlib.sha256(encode(subject)).hexdigest()[0]


def new_session_id(subject: str) -> str:
    """Return the partition digit and 128 random bits, 23 characters in all."""
    return partition(subject) + urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()


def is_session_id(text: str) -> bool:
    return SESSION_ID.fullmatch(text) is not None


class Keyspace:
    """The names of the keys under one prefix, as bytes. Raises ValueError for a prefix that is none."""

    __slots__ = ("_prefix", "prefix")

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError("prefix must be 1 to 64 of the characters A-Z a-z 0-9 . _ : -")
        self.prefix = prefix
        self._prefix = prefix.encode()

    def session(self, session_id: str) -> bytes:
        return self._name(self.digit(session_id), b"session", encode(session_id))

    def user(self, subject: str) -> bytes:
        return self._name(partition(subject), b"user", encode(subject))

    def users(self, digit: str) -> bytes:
        """Return what the user keys of a partition begin with."""
        return self._name(digit, b"user", b"")

    def sessions(self, digit: str) -> bytes:
        """Return what the session keys of a partition begin with."""
        return self._name(digit, b"session", b"")

    def revoked(self, token_id: str) -> bytes:
        return self._name(self.digit(token_id), b"revoked", encode(token_id))

    def not_before(self, subject_id: str) -> bytes:
        return self._name(self.digit(subject_id), b"not-before", encode(subject_id))

    def epoch(self, digit: str) -> bytes:
        return b"%b:{%b}:epoch" % (self._prefix, digit.encode())

    def audit(self) -> bytes:
        """Return the one stream of the audit trail, in a partition that is always the same."""
        return b"%b:{0}:audit" % self._prefix

    def fence(self, digit: str) -> bytes:
        return b"%b:{%b}:fence" % (self._prefix, digit.encode())

    def attempt(self, kind: str, who: str) -> bytes:
        """Return the key of a rate limit; the digest keeps user names and addresses out of Redis."""
        digest = self._attempt_digest(kind, who)
        name = urlsafe_b64encode(digest[:16]).rstrip(b"=")
        return self._name(digest.hex()[0], b"attempt", encode(kind) + b":" + name)

    def attempt_digit(self, kind: str, who: str) -> str:
        """Return the partition of a rate limit."""
        return self._attempt_digest(kind, who).hex()[0]

    def _attempt_digest(self, kind: str, who: str) -> bytes:
        return hashlib.sha256(b"\0".join((self._prefix, encode(kind), encode(who)))).digest()

    def digit(self, identifier: str) -> str:
        """Return the partition that an id names, or a stable one for an id of another maker."""
        first = identifier[:1]
        return first if first and first in DIGITS else partition(identifier)

    def _name(self, digit: str, kind: bytes, rest: bytes) -> bytes:
        return b"%b:{%b}:%b:%b" % (self._prefix, digit.encode(), kind, rest)
