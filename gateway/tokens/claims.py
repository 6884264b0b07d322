"""What a verified token says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, eq=False)
class Claims:
    """The claims of one verified access token (RFC 9068 section 2.2), typed.

    Times are Unix seconds. `sid` is "" and `n` is -1 for a token of another issuer, which has no
    session here. `n` is the session's refresh counter at minting. `raw` is every claim as it was
    signed. `memo` is room for what other rooms derive once a token (it is not part of the value).
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
    memo: dict[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"Claims(sub={self.sub!r}, sid={self.sid!r}, exp={self.exp})"
