"""The panels of the dashboard, row by row: what each asks Prometheus, its unit and what it means."""

from __future__ import annotations

from dataclasses import dataclass

PODS = 'namespace=~"$namespace", job=~"$job", pod=~"$pod"'
ROUTES = f'{PODS}, route=~"$route"'
REPLICA = "instance, pod"  # what a replica is known by: plain Prometheus has no pod


def rate(metric: str, labels: str = PODS) -> str:
    return f"rate({metric}{{{labels}}}[$__rate_interval])"


def total(metric: str, by: str = "", labels: str = PODS) -> str:
    return f"sum{f' by ({by})' if by else ''} ({rate(metric, labels)})"


def quantile(share: float, metric: str, by: str = "", labels: str = PODS) -> str:
    return f"histogram_quantile({share}, {total(f'{metric}_bucket', f'{by}, le' if by else 'le', labels)})"


def spread(metric: str, labels: str = PODS) -> list[tuple[str, str]]:
    return [
        (quantile(share, metric, labels=labels), name) for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
    ]


def share(part: str, whole: str) -> str:
    return f"{part} / {whole}"


def bad(labels: str) -> str:
    return f'{labels}, code=~"5.."'


@dataclass(frozen=True)
class Panel:
    """One panel. `queries` are (expression, legend); `limits` colour a stat from these values on."""

    title: str
    text: str
    queries: list[tuple[str, str]]
    unit: str = "reqps"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    stack: bool = False
    limits: tuple[tuple[str, float], ...] = ()


ROWS: dict[str, list[Panel]] = {
    "Overview": [
        Panel(
            "Ready workers",
            "Workers for which /readyz is 200, of all replicas.",
            [(f'sum(tokengate_workers{{{PODS}, state="ready"}})', "ready")],
            "short",
            "stat",
            4,
            4,
            limits=(("red", 0), ("green", 1)),
        ),
        Panel(
            "Redis",
            "1 while Redis answers every worker of every replica.",
            [(f"min(tokengate_store_up{{{PODS}}})", "up")],
            "short",
            "stat",
            4,
            4,
            limits=(("red", 0), ("green", 1)),
        ),
        Panel(
            "Requests",
            "Requests answered a second, on the chosen routes.",
            [(total("tokengate_requests_total", labels=ROUTES), "requests")],
            "reqps",
            "stat",
            4,
            4,
        ),
        Panel(
            "Server errors",
            "Share of the requests that got a 5xx, from the gateway or from a backend.",
            [
                (
                    share(
                        f"(sum({rate('tokengate_requests_total', bad(ROUTES))}) or vector(0))",
                        total("tokengate_requests_total", labels=ROUTES),
                    ),
                    "5xx",
                )
            ],
            "percentunit",
            "stat",
            4,
            4,
            limits=(("green", 0), ("orange", 0.001), ("red", 0.01)),
        ),
        Panel(
            "Latency, p99",
            "One request in a hundred takes longer, the backend's time included; on the chosen routes.",
            [(quantile(0.99, "tokengate_request_seconds", labels=ROUTES), "p99")],
            "s",
            "stat",
            4,
            4,
        ),
        Panel(
            "Sign-ins",
            "Sessions begun a minute.",
            [(f"""60 * (sum({rate("tokengate_sessions_total", PODS + ', event="created"')}) or vector(0))""", "begun")],
            "short",
            "stat",
            4,
            4,
        ),
    ],
    "Traffic": [
        Panel(
            "Requests by status",
            "499: the client left before the answer.",
            [(total("tokengate_requests_total", "code", ROUTES), "{{code}}")],
            stack=True,
        ),
        Panel("Requests by route", "", [(total("tokengate_requests_total", "route", ROUTES), "{{route}}")], stack=True),
        Panel(
            "Server errors by route",
            "Share of each route's requests that got a 5xx.",
            [
                (
                    share(
                        total("tokengate_requests_total", "route", bad(ROUTES)),
                        total("tokengate_requests_total", "route", ROUTES),
                    ),
                    "{{route}}",
                )
            ],
            "percentunit",
        ),
        Panel(
            "Latency",
            "From a request's first byte to its answer's last.",
            spread("tokengate_request_seconds", ROUTES),
            "s",
        ),
        Panel(
            "Latency by route, p50",
            "",
            [(quantile(0.5, "tokengate_request_seconds", "route", ROUTES), "{{route}}")],
            "s",
        ),
        Panel(
            "Latency by route, p99",
            "",
            [(quantile(0.99, "tokengate_request_seconds", "route", ROUTES), "{{route}}")],
            "s",
        ),
    ],
    "Rejections": [
        Panel(
            "Refused by error",
            "Requests that the gateway itself refused, by the code of X-Gateway-Error, on all routes.",
            [(total("tokengate_rejections_total", "error"), "{{error}}")],
            width=12,
            stack=True,
        ),
        Panel(
            "Refused by route",
            "Without a name: what was refused before a route was found. auth: the gateway's own API.",
            [(total("tokengate_rejections_total", "route"), "{{route}}")],
            width=12,
            stack=True,
        ),
    ],
    "Sessions": [
        Panel(
            "Events",
            "Sessions begun and ended, and sign-ins that failed, a second.",
            [(total("tokengate_sessions_total", "event"), "{{event}}")],
            "ops",
        ),
        Panel(
            "Refreshes",
            "Refresh tokens presented a second, by what became of them.",
            [(total("tokengate_refreshes_total", "outcome"), "{{outcome}}")],
            "ops",
            stack=True,
        ),
        Panel(
            "Reuse",
            "Share of the refreshes at which a token was used again after its successor: the session has ended.",
            [
                (
                    share(
                        total("tokengate_refreshes_total", labels=PODS + ', outcome="reuse"'),
                        total("tokengate_refreshes_total"),
                    ),
                    "reuse",
                )
            ],
            "percentunit",
        ),
    ],
    "Redis": [
        Panel(
            "Live check",
            "Every request on a guarded route waits for one; it is where a revocation is seen.",
            spread("tokengate_store_seconds", PODS + ', operation="check"'),
            "s",
        ),
        Panel(
            "Operations, p99",
            "",
            [(quantile(0.99, "tokengate_store_seconds", "operation"), "{{operation}}")],
            "s",
        ),
        Panel(
            "Operations",
            "Scripts and checks a second; a check is one round trip for all requests that waited.",
            [(total("tokengate_store_seconds_count", "operation"), "{{operation}}")],
            "ops",
            stack=True,
        ),
        Panel(
            "Redis answers",
            "1 while Redis answers every worker of the replica.",
            [(f"min by ({REPLICA}) (tokengate_store_up{{{PODS}}})", "{{pod}} {{instance}}")],
            "short",
            width=6,
        ),
        Panel(
            "Rolled back",
            "Partitions, of 16, that were found with older data; their sessions are void.",
            [(f"sum(increase(tokengate_store_rollbacks_total{{{PODS}}}[$__rate_interval]))", "partitions")],
            "short",
            width=6,
        ),
        Panel(
            "Requests in a check",
            "Live checks that shared one round trip.",
            [
                (share(total("tokengate_check_batch_size_sum"), total("tokengate_check_batch_size_count")), "mean"),
                (quantile(0.99, "tokengate_check_batch_size"), "p99"),
            ],
            "short",
            width=6,
        ),
        Panel(
            "Audit entries left out",
            "Lines of the log that the stream in Redis lacks, a second. Nothing where audit.stream is off.",
            [(total("tokengate_audit_dropped_total", "reason"), "{{reason}}")],
            "ops",
            width=6,
        ),
    ],
    "Backends and other issuers": [
        Panel(
            "Backend errors",
            "Backends that could not be reached, were late, or answered what is no HTTP.",
            [(total("tokengate_upstream_errors_total", "route, kind", ROUTES), "{{route}} {{kind}}")],
            "ops",
        ),
        Panel(
            "Age of issuers' keys",
            "Since when the keys of another issuer were last fetched, by the worker with the oldest.",
            [(f"time() - min by (issuer) (tokengate_issuer_keys_timestamp_seconds{{{PODS}}})", "{{issuer}}")],
            "s",
        ),
        Panel(
            "Fetches of issuers' keys",
            "",
            [(total("tokengate_issuer_fetches_total", "issuer, outcome"), "{{issuer}} {{outcome}}")],
            "ops",
        ),
    ],
    "Connections and streams": [
        Panel(
            "Connections",
            "Open connections of clients and to backends.",
            [(f"sum by (side) (tokengate_connections{{{PODS}}})", "{{side}}")],
            "short",
        ),
        Panel(
            "Connections by replica",
            "",
            [(f'sum by ({REPLICA}) (tokengate_connections{{{PODS}, side="client"}})', "{{pod}} {{instance}}")],
            "short",
        ),
        Panel(
            "Streams ended",
            "WebSockets and event streams that the gateway ended, by why.",
            [(total("tokengate_streams_closed_total", "reason"), "{{reason}}")],
            "ops",
        ),
    ],
    "Process": [
        Panel(
            "Workers",
            "By what /readyz says of each.",
            [(f"sum by (state) (tokengate_workers{{{PODS}}})", "{{state}}")],
            "short",
            width=6,
            stack=True,
        ),
        Panel(
            "CPU",
            "Cores in use; a worker uses one at most.",
            [(total("process_cpu_seconds_total", REPLICA, PODS + ', job=~".*tokengate.*"'), "{{pod}} {{instance}}")],
            "short",
            width=6,
        ),
        Panel(
            "Memory",
            "Resident, all workers of a replica.",
            [
                (
                    f'sum by ({REPLICA}) (process_resident_memory_bytes{{{PODS}, job=~".*tokengate.*"}})',
                    "{{pod}} {{instance}}",
                )
            ],
            "bytes",
            width=6,
        ),
        Panel(
            "Running for",
            "Since the oldest worker that lives was started.",
            [
                (
                    f'time() - min by ({REPLICA}) (process_start_time_seconds{{{PODS}, job=~".*tokengate.*"}})',
                    "{{pod}} {{instance}}",
                )
            ],
            "s",
            width=6,
        ),
    ],
}
