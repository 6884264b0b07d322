"""What the questions to other services have in common: a client that does as it is told here, and bounded answers.

No cookie is kept, no proxy or password of the environment is used, no answer is unpacked (a small one may be huge), and
what goes wrong is told without quoting the answer, which may hold anything.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping

import aiohttp


class TooLong(ValueError):
    """An answer has more bytes than may be read."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"answered more than {limit} bytes")


def new_client(headers: Mapping[str, str], connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    """Return a client, on a running loop. Its user bounds each question in time, and refuses redirects."""
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": "tokengate", **headers},
        auto_decompress=False,
        trust_env=False,
    )


def is_packed(response: aiohttp.ClientResponse) -> bool:
    """Tell whether a body is compressed, though that was not asked for."""
    return response.headers.get("Content-Encoding", "identity").lower() != "identity"


async def read(content: aiohttp.StreamReader, limit: int) -> bytes:
    """Return a body. Raises TooLong."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > limit:
            raise TooLong(limit)
    return bytes(body)


def cause(error: Exception) -> str:
    """Say what went wrong."""
    if isinstance(error, TooLong):
        return str(error)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return "its certificate is not trusted"
    number = getattr(error, "errno", None)
    return f"{type(error).__name__}: {os.strerror(number)}" if isinstance(number, int) else type(error).__name__
