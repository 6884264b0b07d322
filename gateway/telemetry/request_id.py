"""Naming a request: a name made here, or one that a trusted proxy gave."""

from __future__ import annotations

import os
import re
import secrets
from itertools import count

_VALID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class _Source:
    """A random prefix of the process and a counter: unique without a system call a request."""

    __slots__ = ("numbers", "prefix")

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.prefix = secrets.token_hex(6).encode() + b"-"
        self.numbers = count(1)


_source = _Source()
os.register_at_fork(after_in_child=_source.renew)  # else parent and child give the same names


def new_request_id() -> bytes:
    """Return a name for one request: 12 hex digits of this process, "-", a hexadecimal count."""
    return _source.prefix + b"%x" % next(_source.numbers)


def valid_request_id(value: bytes) -> bool:
    """Whether a name that came from outside may be taken over: [A-Za-z0-9._-], 1 to 128 bytes.

    Anything else could break a header or a log line, so the caller makes a name of its own.
    """
    return _VALID.fullmatch(value) is not None
