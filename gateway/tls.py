"""The certificate of the clients' listener, replaced while it serves.

What is replaced is the context as a whole, at each handshake (RFC 6066 3 is when OpenSSL asks): a certificate
loaded into the context in use could meet the key of the other one, and no handshake would succeed then.
"""

from __future__ import annotations

import ssl
from pathlib import Path


class Certificate:
    """What a listener shows. `context` is the one that it was opened with; connections that stand keep theirs."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._opened_with = context
        self._current = context

    def replace(self, context: ssl.SSLContext) -> None:
        """Show another certificate from the next handshake on."""
        self._current = context
        self._opened_with.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._current


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context that shows a certificate. Raises ValueError that names the files where they are no use."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(str(certificate), str(key), password="")  # the terminal is never asked
    except (OSError, ValueError) as error:
        raise ValueError(f'server.tls_cert: "{certificate}" and "{key}" are no use: {error}') from None
    return context
