"""What a verified token says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Foreign:
    """What a token of another issuer is known by here. The ids begin with `~`, as none of this gateway's does.

    `subject` is the user as the issuer names them.
    """

    subject: str
    subject_id: str
    token_id: str


@dataclass(frozen=True, slots=True, eq=False)
class Claims:
    """The claims of one verified access token (RFC 9068 section 2.2), typed.

    Times are Unix seconds. `n` is the session's refresh counter at minting. `raw` is every claim as it was
    signed. `memo` is room for what other rooms derive once a token (it is not part of the value).

    A token of another issuer has no session here: `foreign` is set, `sid` is "", `n` is -1, and `raw` is told
    in this gateway's terms (foreign.py).
    """

    iss: str
    sub: str
    aud: tuple[str, ...]
    exp: int
    iat: int
    jti: str
    sid: str
    n: int
    roles: tuple[str, ...]
    scope: tuple[str, ...]
    client_id: str
    raw: Mapping[str, Any]
    foreign: Foreign | None = None
    memo: dict[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"Claims(sub={self.sub!r}, sid={self.sid!r}, exp={self.exp})"


def claim_at(raw: Mapping[str, Any], path: str) -> Any:
    """Return the claim at a name, or at a dotted path where no claim has the whole name; None if absent."""
    if path in raw:
        return raw[path]
    value: Any = raw
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return None
        value = value[step]
    return value
