"""The keys of other issuers, fetched in the background (RFC 7517 5).

Laws:
- One fetch of an issuer is under way at a time, and whoever needs its result shares it.
- What clients send can cause one fetch in `COOLDOWN` seconds, however many requests name an unknown key; those that
  are due by the clock do not count.
- An issuer that cannot be reached, or answers what is no JWK Set, takes nothing away: the keys that are there stay
  until a fetch succeeds. A fetch that succeeds takes the removed ones away at once.
- No redirect is followed, no more than MAX_BYTES are read, and every fetch ends after its timeout.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import ssl
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from gateway.identity.outbound import cause, is_packed, new_client, read

MAX_BYTES: Final = 256 * 1024
COOLDOWN: Final = 10.0  # seconds between two fetches that requests caused
LEAST_REFRESH: Final = 30.0  # seconds, whatever an issuer's Cache-Control says
LONGEST_RETRY: Final = 30.0  # seconds between tries while an issuer fails
MAX_WAITING: Final = 1024  # requests that may wait for one fetch

_ETAG = re.compile(r'(W/)?"[!#-~]{0,200}"')  # RFC 9110 8.8.3, ASCII
_MAX_AGE = re.compile(r"(?:^|,)\s*max-age=(\d{1,9})\s*(?:,|$)")
_HEADERS: Final = {"Accept": "application/jwk-set+json, application/json"}

_LOG = logging.getLogger("gateway.identity")

# (issuer, whether the fetch succeeded)
Report = Callable[[str, bool], None]


class FetchFailed(Exception):
    """The keys could not be fetched. The message says why, and quotes nothing of the answer."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the keys of an issuer are. `refresh` and `timeout` are in seconds, `tls` None for the system's authorities.

    `take(body)` takes what was fetched up; it raises ValueError where that is no JWK Set.
    """

    issuer: str
    url: str
    take: Callable[[bytes], None]
    refresh: float = 600.0
    timeout: float = 5.0
    tls: ssl.SSLContext | None = field(default=None, repr=False)


class IssuerKeys:
    """Keeps the keys of all issuers fresh, on one event loop."""

    def __init__(self, sources: Mapping[str, Source], report: Report | None = None) -> None:
        self._fetchers = {issuer: Fetcher(source, report) for issuer, source in sources.items()}
        self._report = report
        self._closing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to fetch; called on the running loop."""
        for fetcher in self._fetchers.values():
            fetcher.start()

    def take_up(self, sources: Mapping[str, Source], fresh: Container[str]) -> None:
        """Fetch from these sources from here on, at once for the issuers in `fresh`; after `start`, on its loop.

        Whatever is under way for an issuer in `fresh`, or for one that is no more, brings nothing.
        """
        before, self._fetchers = self._fetchers, {}
        for issuer, source in sources.items():
            if issuer in before and issuer not in fresh:
                fetcher = before.pop(issuer)
                fetcher.source = source
            else:
                fetcher = Fetcher(source, self._report)
                fetcher.start()
            self._fetchers[issuer] = fetcher
        for fetcher in before.values():
            fetcher.stop()
            task = asyncio.get_running_loop().create_task(fetcher.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        await asyncio.gather(*self._closing, *(fetcher.close() for fetcher in self._fetchers.values()))

    def want(self, issuer: str) -> asyncio.Future[None] | None:
        """Return what to await for fresher keys of an issuer, None where there will be none for now.

        It ends with the fetch, whether that succeeded or not, and is never cancelled from outside.
        """
        fetcher = self._fetchers.get(issuer)
        return fetcher.want() if fetcher is not None else None


class Fetcher:
    """Fetches the keys of one issuer: by the clock, and on demand."""

    def __init__(self, source: Source, report: Report | None = None) -> None:
        self.source = source
        self.failing = False
        self._report = report
        self._client: aiohttp.ClientSession | None = None
        self._flight: asyncio.Task[float] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._waiting = 0
        self._demanded = float("-inf")
        self._failures = 0
        self._etag = ""
        self._due = source.refresh

    def __repr__(self) -> str:
        return f"Fetcher({self.source.issuer!r})"

    def start(self) -> None:
        self._fly()
        self._watch = asyncio.get_running_loop().create_task(self._keep_fresh())

    def stop(self) -> None:
        """Take up nothing any more, not even what is under way."""
        for task in self._tasks():
            task.cancel()

    async def close(self) -> None:
        self.stop()
        await asyncio.gather(*self._tasks(), return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def want(self) -> asyncio.Future[None] | None:
        """See IssuerKeys.want."""
        now = time.monotonic()
        flying = self._flight is not None and not self._flight.done()
        if self._waiting >= MAX_WAITING or not (flying or now - self._demanded >= COOLDOWN):
            return None
        if not flying:
            self._demanded = now
        return asyncio.ensure_future(self._wait(self._fly()))

    async def fetch(self) -> bytes | None:
        """Return the JWK Set as it is now, None where it has not changed. Raises FetchFailed."""
        try:
            async with asyncio.timeout(self.source.timeout):
                return await self._exchange()
        except FetchFailed:
            raise
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            raise FetchFailed(cause(error)) from error

    def _tasks(self) -> list[asyncio.Task[Any]]:
        return [task for task in (self._watch, self._flight) if task is not None]

    async def _wait(self, flight: asyncio.Task[float]) -> None:
        self._waiting += 1
        try:
            await asyncio.wait({flight})
        finally:
            self._waiting -= 1

    def _fly(self) -> asyncio.Task[float]:
        if self._flight is None or self._flight.done():
            self._flight = asyncio.get_running_loop().create_task(self._refresh())
        return self._flight

    async def _keep_fresh(self) -> None:
        while True:
            flight = self._fly()
            await asyncio.wait({flight})
            await asyncio.sleep(flight.result() * random.uniform(0.8, 1.0))  # noqa: S311  # replicas drift apart

    async def _refresh(self) -> float:
        """Fetch once, take up what came, and return the seconds until it is due again."""
        try:
            body = await self.fetch()
            if body is not None:
                self.source.take(body)
        except (FetchFailed, ValueError) as error:
            return self._failed(str(error))
        except Exception as error:  # a defect must not end the background task, nor pass for success
            _LOG.error("the keys of an issuer were not fetched", exc_info=error)
            return self._failed(type(error).__name__)
        self._failures = 0
        if self.failing:
            self.failing = False
            _LOG.warning("the keys of an issuer can be fetched again", extra={"issuer": self.source.issuer})
        if self._report is not None:
            self._report(self.source.issuer, True)
        return self._due

    def _failed(self, reason: str) -> float:
        if not self.failing:
            told = {"issuer": self.source.issuer, "url": self.source.url, "reason": reason}
            _LOG.warning("the keys of an issuer cannot be fetched; those that are there stay", extra=told)
        self.failing = True
        self._failures += 1
        self._etag = ""  # what was not taken up must be sent again
        if self._report is not None:
            self._report(self.source.issuer, False)
        return min(2.0 ** min(self._failures - 1, 10), LONGEST_RETRY, self.source.refresh)

    async def _exchange(self) -> bytes | None:
        headers = {"If-None-Match": self._etag} if self._etag else {}
        source = self.source
        async with self._open().get(
            source.url, allow_redirects=False, headers=headers, ssl=source.tls or True
        ) as response:
            self._due = self._freshness(response.headers.getall("Cache-Control", []))
            if response.status == 304 and self._etag:
                return None
            if response.status != 200:
                raise FetchFailed(f"answered {response.status}")
            if is_packed(response):
                raise FetchFailed("answered with a compressed body")
            body = await read(response.content, MAX_BYTES)
            etag = response.headers.get("ETag", "")
            self._etag = etag if _ETAG.fullmatch(etag) else ""
            return body

    def _freshness(self, cache_control: list[str]) -> float:
        """Return for how long an answer may be used (RFC 9111 5.2.2.1): never longer than configured.

        Without max-age, with no-cache (Keycloak) and no-store, the configured time holds.
        """
        found = _MAX_AGE.search(",".join(cache_control).lower())
        if found is None or int(found[1]) == 0:
            return self.source.refresh
        return min(self.source.refresh, max(LEAST_REFRESH, float(found[1])))

    def _open(self) -> aiohttp.ClientSession:
        if self._client is None:  # not before there is an event loop
            self._client = new_client(_HEADERS, aiohttp.TCPConnector(limit=2, force_close=True))
        return self._client


def tls_context(authorities: str | None) -> ssl.SSLContext:
    """Return the TLS settings of a fetch: chain and name are verified, TLS 1.2 and newer.

    `authorities` is a PEM file, None for the system's. Raises OSError where it cannot be read or is no PEM.
    """
    context = ssl.create_default_context(cafile=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
