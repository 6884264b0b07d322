"""The composition root: the only file that knows every room.

Settings become plain values here and the rooms are built from them, in the order in which they depend
on each other. `Worker` is one process' share of the gateway; when it begins and ends stands in lifespan.py.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gateway.api import Clients, Services, create_api
from gateway.api.management import Management, create_management
from gateway.api.oauth import Revoker
from gateway.backends import Backends
from gateway.errors import NoRoute
from gateway.gate import Gate
from gateway.grants import Grants, TokenSet
from gateway.identity import Provider
from gateway.identity.current import CurrentProvider
from gateway.identity.jwks import IssuerKeys, Source
from gateway.identity.passwords import PasswordPool
from gateway.issuers import issuer_rules, key_sources, refetched, reporter
from gateway.keys import Keys, Rings
from gateway.parts import (
    access_log,
    admin_digests,
    cookie_path,
    limits,
    make_cookies,
    make_verifier,
    open_exporter,
    open_liveness,
    open_provider,
    open_store,
    open_trail,
    redis_endpoint,
    route_table,
)
from gateway.proxy.headers import RequestKinds, identity_block, identity_headers
from gateway.proxy.plane import Plane, new_traces
from gateway.proxy.renewal import Renewer
from gateway.proxy.routes import check_method
from gateway.proxy.trust import trust
from gateway.sessions.clocks import Clocks
from gateway.sessions.connect import open_client
from gateway.sessions.epochs import Epochs
from gateway.sessions.trail import AuditWriter
from gateway.settings import Settings
from gateway.telemetry import Telemetry, audit, audit_sink, new_request_id, set_level, valid_request_id
from gateway.telemetry.access import Lines
from gateway.telemetry.spans import Sampler, step
from gateway.tokens.access import AccessRule
from gateway.tokens.foreign import Issuers
from gateway.tokens.keyring import BadKey
from gateway.tokens.refresh import RefreshTokens
from gateway.tokens.signer import Signer
from gateway.traced import TracedGate, store_observer
from gateway.watch import LOOK_SECONDS

_LOG = logging.getLogger("gateway.app")
FLUSH_SECONDS = 1.0
EXPORT_SECONDS = 2.0  # for the last spans, once nothing is served any more
RELOADED = (  # what a reload replaces on the plane; the rest of it lives as long as the worker
    "table",
    "kinds",
    "identity",
    "trusts",
    "max_header_bytes",
    "max_body_bytes",
    "max_connections",
    "pace",
    "header_timeout",
    "keepalive_timeout",
    "exchange",
    "control",
    "refused",
    "cors",
)


class Worker:
    """All rooms of one process. Made on a running event loop."""

    def __init__(self, settings: Settings, run_directory: Path | None = None) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.telemetry = Telemetry(run_directory)
        self.exporter = open_exporter(settings)
        self.lines: Lines | None = None
        self.keys = Keys(settings, time.time())
        self._open_store()
        self._make_tokens()
        self.provider = CurrentProvider(open_provider(settings))
        self.passwords = PasswordPool()
        self.cookies = make_cookies(settings)
        self.gate = self._gate()
        self.grants = Grants(
            self.provider,
            self.store,
            self.signer,
            self.refresh_tokens,
            limits(settings),
            settings.identity.recheck_on_refresh,
            self.telemetry,
            issuers=self.issuers,
        )
        self.backends = Backends(self.loop, self.telemetry)
        self.plane = self._plane()
        self.backends.settle(taken=True)
        self.api = create_api(self._services())
        self.management = create_management(self._management())
        self.listening = False  # set by the server, whose listener comes last
        self._tasks: list[asyncio.Task[None]] = []
        self._sinks = ExitStack()

    def _open_store(self) -> None:
        """Make what talks with Redis: sessions, the live check, and what watches over both."""
        settings, redis = self.settings, self.settings.redis
        endpoint = redis_endpoint(settings)
        client = open_client(endpoint, redis.timeout)
        self.epochs = Epochs(client, redis.prefix, redis.timeout, report=self._rolled_back)
        self.liveness = open_liveness(settings, endpoint, self.epochs, self.telemetry.check_batch)
        self.clocks = Clocks(client, redis.timeout, settings.tokens.leeway, self.telemetry.clock_skew)
        observe = store_observer(self.telemetry) if self.exporter is not None else self.telemetry.store
        self.store = open_store(settings, client, observe, self.epochs, self.liveness.is_down)
        self.trail: AuditWriter | None = None
        if settings.audit.stream:
            trail = open_trail(settings, client, self.telemetry.store)
            self.trail = AuditWriter(trail, socket.gethostname(), self.telemetry.audit_dropped)

    def _make_tokens(self) -> None:
        """Make what mints tokens and what verifies them, those of other issuers too."""
        settings, tokens = self.settings, self.settings.tokens
        self.issuers = Issuers([issuer_rules(each) for each in settings.issuers], tokens.leeway)
        self.verifier = make_verifier(settings, self.keys.keyring, self.issuers)
        sources = key_sources(settings.issuers, self.issuers, self.verifier)
        self.issuer_keys = IssuerKeys(sources, reporter(self.telemetry.issuer_fetched, time.time))
        self.signer = Signer(self.keys.keyring, tokens.issuer, tokens.audience, tokens.access_ttl)
        self.refresh_tokens = RefreshTokens(self.keys.refresh, tokens.refresh_format, tokens.issuer)

    def _gate(self) -> Gate:
        cookies = self.settings.cookies
        return (TracedGate if self.exporter is not None else Gate)(
            self.verifier,
            self.liveness,
            self.store.mark_used,
            access_cookie=cookies.access,
            allow_same_site=cookies.allow_same_site,
            issuer=self.settings.tokens.issuer,
            issuer_keys=self.issuer_keys,
            listed=self.cookies.listed,
        )

    def start(self) -> None:
        """Connect to Redis and begin to watch; an unreachable Redis leaves the worker up and heals by itself.

        So does another issuer whose keys cannot be fetched: its tokens are answered 503 until they can.
        """
        if self.trail is not None:
            self.trail.start()
            self._sinks.enter_context(audit_sink(self.trail.take))
        self.epochs.start()
        self.liveness.start()
        self.clocks.start()
        self.issuer_keys.start()
        self._tasks = [self.loop.create_task(self._flush()), self.loop.create_task(self._watch_keys())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.backends.close()
        self.plane.wheel.stop()
        self.plane.streams.stop()
        await self.issuer_keys.close()
        await self.clocks.close()
        await self.epochs.close()
        await self.liveness.close()
        self._sinks.close()
        if self.trail is not None:
            await self.trail.close()
        await self.store.close()
        await self.provider.close()
        self.passwords.close()
        if self.lines is not None:
            self.lines.close()
        if self.exporter is not None:
            await asyncio.to_thread(self.exporter.close, EXPORT_SECONDS)
            self.telemetry.spans(self.exporter.counts())
        self.telemetry.close()

    def failing(self) -> list[str]:
        """Name what keeps this replica from serving (readyz)."""
        checks = {
            "listening": self.listening,
            "redis": self.liveness.up,
            "clock": self.clocks.agree,
            "draining": not self.plane.draining,
        }
        return [name for name, passed in checks.items() if not passed]

    async def manage(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve the management listener, whose application another admin token replaces."""
        await self.management(scope, receive, send)

    async def reload_keys(self) -> Mapping[str, Any]:
        """Read the key directory again; return which keys sign, and which will. Raises BadKey."""
        self._take_keys(await asyncio.to_thread(self.keys.read))
        return self.keys.report(time.time())

    def _take_keys(self, rings: Rings) -> None:
        self.keys.take(rings, self.signer, self.verifier, self.refresh_tokens, time.time())

    def take_up(self, settings: Settings, provider: Provider, rings: Rings) -> None:
        """Let whatever comes from here on meet these settings and keys.

        Raises SettingsError, ValueError or OSError, and then nothing has changed.
        """
        before, self.settings = self.settings, settings
        old_cookies, self.cookies = self.cookies, make_cookies(settings)
        try:
            fresh = self._plane()
            sources = key_sources(settings.issuers, self.issuers, self.verifier)
        except BaseException:
            self.settings, self.cookies = before, old_cookies
            self.backends.settle(taken=False)
            raise
        self.gate.listed = self.cookies.listed
        self._take_keys(rings)
        self.verifier.reload(self.keys.keyring)  # it forgets headers made for a token, also where other keys came first
        for name in RELOADED:
            setattr(self.plane, name, getattr(fresh, name))
        if cookie_path(before) != cookie_path(settings):
            self.plane.renewer = fresh.renewer
        if before.log.level != settings.log.level:
            set_level(settings.log.level)
        self.provider.replace(provider)
        self._take_up_issuers(before, sources)
        self.grants.take_up(limits(settings), settings.identity.recheck_on_refresh)
        self.api = create_api(self._services())
        self.management = create_management(self._management())
        self.backends.settle(taken=True)

    def _take_up_issuers(self, before: Settings, sources: Mapping[str, Source]) -> None:
        settings = self.settings
        anew = refetched(before.issuers, settings.issuers)
        self.verifier.forget_keys(self.issuers.take_up([issuer_rules(each) for each in settings.issuers], anew))
        self.verifier.accept(self.issuers if settings.issuers else None)
        self.issuer_keys.take_up(sources, anew)
        for issuer in {each.issuer for each in before.issuers} - sources.keys():
            self.telemetry.issuer_removed(issuer)

    async def _flush(self) -> None:
        was_up = True
        while True:
            self.telemetry.readiness(self.failing())
            if self.exporter is not None:
                self.telemetry.spans(self.exporter.counts())
            self.telemetry.flush()
            await asyncio.sleep(FLUSH_SECONDS)  # at the start it takes a moment until Redis can have answered
            if self.liveness.up != was_up:
                was_up = self.liveness.up
                _LOG.warning("Redis answers again" if was_up else "Redis does not answer")
                if was_up:
                    self.clocks.hurry()

    def _rolled_back(self, partition: str) -> None:
        audit("store_rolled_back", partition=partition)
        self.telemetry.store_rolled_back()

    async def _watch_keys(self) -> None:
        """Take up keys that are added or removed, and tell of keys whose time has come, without a call."""
        watch = self.keys.watch
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self.settings.server.watch_files and watch.changed():
                    await self.reload_keys()
                    audit("keys_reloaded", by="watch")
            except BadKey as error:
                if watch.refused(str(error)):
                    _LOG.error("the keys were not reloaded", extra={"reason": str(error)})
            self.keys.tell(time.time())

    def _plane(self) -> Plane:
        settings, spec = self.settings, dict(self.settings.identity_headers)
        server, cookies = settings.server, settings.cookies
        names = [name for name in (cookies.refresh, cookies.access) if name]
        plane = Plane(
            loop=self.loop,
            table=route_table(settings, self.backends, self.telemetry),
            gate=self.gate,
            realm=settings.tokens.audience,
            kinds=RequestKinds(name.encode() for name in spec),
            identity=lambda claims: identity_block(identity_headers(spec, claims.raw)),
            meters=self.telemetry,
            own_cookies=tuple(name.encode() for name in names),
            trusts=trust(server.trusted_proxies) if server.trusted_proxies else None,
            request_id=new_request_id,
            valid_request_id=valid_request_id,
            max_header_bytes=server.max_header_bytes,
            max_body_bytes=server.max_body_bytes,
            max_connections=server.max_connections,
            overload_after=server.overload_after,
            header_timeout=server.header_timeout,
            keepalive_timeout=server.keepalive_timeout,
            proxy_protocol=server.proxy_protocol,
            control_meter=self.telemetry.route("control"),
            renewer=self._renewer(),
            leeway=settings.tokens.leeway,
        )
        self._observe(plane)
        self._allow_origins(plane)
        return plane

    def _allow_origins(self, plane: Plane) -> None:
        """Have pages of other origins answered, where some may call."""
        section = self.settings.cors
        if section.allow_origins:
            from gateway.proxy.cors import Origins
            from gateway.proxy.cross_origin import allow

            exposed = (name.encode() for name in section.expose_headers)
            allow(plane, Origins(sorted(self.cookies.listed), exposed, int(section.max_age)))

    def _observe(self, plane: Plane) -> None:
        """Have requests traced and logged, as far as that is asked for."""
        settings, sampler = self.settings, None
        if self.exporter is not None:
            sampler = Sampler(settings.tracing.sample_ratio, settings.tracing.parents, self.exporter)
            plane.new_trace = new_traces(recorded=False).__next__
        if settings.log.access and self.lines is None:
            self.lines = Lines(self.loop)
        access = access_log(settings, self.lines) if self.lines is not None else None
        if sampler is not None or access is not None:
            from gateway.proxy.observer import observe

            observe(plane, sampler, access)

    def _renewer(self) -> Renewer:
        async def refresh(token: bytes, ip: str, request_id: str) -> TokenSet:
            with step("refresh", "internal"):
                return await self.grants.refresh(token, ip, request_id=request_id)

        async def counter(session_id: str) -> int | None:
            session = await self.store.get(session_id)
            return None if session is None else session.counter

        return Renewer(refresh, self.refresh_tokens.read, counter, self.cookies, time.time, self.loop)

    def _services(self) -> Services:
        settings, spec = self.settings, dict(self.settings.identity_headers)
        table = self.plane.table

        def match(host: bytes, path: bytes, method: bytes) -> AccessRule:
            route = table.find_verbatim(host, path)
            if route.upstream is None:  # no other proxy guards what is ours alone
                raise NoRoute
            check_method(route, method)
            return route.rule

        return Services(
            grants=self.grants,
            gate=self.gate,
            store=self.store,
            keyring=lambda: self.keys.keyring,
            refresh_tokens=self.refresh_tokens,
            verifier=self.verifier,
            telemetry=self.telemetry,
            issuer=settings.tokens.issuer,
            realm=settings.tokens.audience,
            cookies=self.cookies,
            clients=Clients(settings.introspection.clients, self.passwords.verify),
            match=match,
            identity_headers=lambda claims: identity_headers(spec, claims.raw),
            identity_names=tuple(name.encode() for name in spec),
            trusted=trust(settings.server.trusted_proxies),
        )

    def _management(self) -> Management:
        return Management(
            grants=self.grants,
            store=self.store,
            revoker=Revoker(self.grants, self.gate, self.refresh_tokens),
            telemetry=self.telemetry,
            failing=self.failing,
            reload_keys=self.reload_keys,
            admins=lambda: admin_digests(self.settings),
            realm="management",
        )
