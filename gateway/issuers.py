"""What the settings say of other issuers, as rules for the verifier and sources of their keys."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from gateway.identity.jwks import Fetcher, FetchFailed, Report, Source, tls_context
from gateway.settings.routes import Issuer
from gateway.tokens.foreign import IssuerRules, Issuers
from gateway.tokens.keyset import KeySet
from gateway.tokens.verifier import Verifier

_LOG = logging.getLogger("gateway.issuers")


def issuer_rules(issuer: Issuer) -> IssuerRules:
    return IssuerRules(
        issuer=issuer.issuer,
        audience=issuer.audience,
        algorithms=issuer.algorithms,
        types=frozenset(typ.lower().removeprefix("application/") for typ in issuer.typ),
        roles_claim=issuer.roles_claim,
        scope_claim=issuer.scope_claim,
        subject_claim=issuer.subject_claim,
        max_ttl=issuer.max_token_ttl,
        subject_prefix=issuer.subject_prefix,
        exchange_prefix=issuer.namespace if issuer.exchange else "",
        exchange_claims=issuer.exchange_claims,
    )


def key_sources(settings: Sequence[Issuer], issuers: Issuers, verifier: Verifier) -> dict[str, Source]:
    """Return where the keys of each issuer are. Raises ValueError for a file of authorities that cannot be used."""

    def take(issuer: Issuer, body: bytes) -> None:
        keys = KeySet.parse(body, issuer.algorithms, issuers.keys(issuer.issuer))
        verifier.forget_keys(issuers.take_keys(issuer.issuer, keys))
        if not keys:
            _LOG.error("an issuer publishes no key that can be used", extra={"issuer": issuer.issuer})

    return {issuer.issuer: _source(n, issuer, partial(take, issuer)) for n, issuer in enumerate(settings)}


def refetched(before: Sequence[Issuer], after: Sequence[Issuer]) -> frozenset[str]:
    """Return the issuers whose keys are to be fetched anew: new ones, and those whose keys are now elsewhere."""
    known = {_whereabouts(issuer) for issuer in before}
    return frozenset(issuer.issuer for issuer in after if _whereabouts(issuer) not in known)


def _whereabouts(issuer: Issuer) -> tuple[object, ...]:
    return issuer.issuer, issuer.jwks_url, issuer.jwks_ca, tuple(issuer.algorithms)


async def check_keys(position: int, issuer: Issuer) -> KeySet:
    """Fetch the keys of an issuer once. Raises ValueError that says why there are none."""
    found: list[KeySet] = []
    source = _source(position, issuer, lambda body: found.append(KeySet.parse(body, issuer.algorithms)))
    fetcher = Fetcher(source)
    try:
        source.take(await fetcher.fetch() or b"")
    except (FetchFailed, ValueError) as error:
        raise ValueError(f"issuers.{position}.jwks_url: {issuer.jwks_url}: {error}") from None
    finally:
        await fetcher.close()
    if not found[0]:
        raise ValueError(f"issuers.{position}.jwks_url: {issuer.jwks_url}: holds no key that can be used")
    return found[0]


def reporter(count: Callable[[str, float, bool], None], clock: Callable[[], float]) -> Report:
    """Return what tells the telemetry of every fetch."""
    return lambda issuer, succeeded: count(issuer, clock(), succeeded)


def _source(position: int, issuer: Issuer, take: Callable[[bytes], None]) -> Source:
    tls = None
    if issuer.jwks_url.startswith("https://"):
        try:
            tls = tls_context(str(issuer.jwks_ca) if issuer.jwks_ca else None)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(f"issuers.{position}.jwks_ca: {error.strerror or error}") from None
    return Source(issuer.issuer, issuer.jwks_url, take, issuer.jwks_refresh, issuer.jwks_timeout, tls)
