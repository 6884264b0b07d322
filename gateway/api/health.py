"""GET /livez, /readyz and /metrics of the management listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.answers import header_values, json_answer, text_answer
from gateway.telemetry import CONTENT_TYPE, OPENMETRICS, wants_openmetrics

if TYPE_CHECKING:
    from gateway.api.management import Management


async def livez(site: Management, request: Request) -> Response:
    """The process answers; nothing else is looked at, so that an outage of Redis restarts no one."""
    return json_answer({"status": "alive"})


async def readyz(site: Management, request: Request) -> Response:
    """503 with what fails, so that a load balancer sends its requests elsewhere."""
    failing = sorted(site.failing())
    if failing:
        return json_answer({"status": "unready", "failing": failing}, status=503)
    return json_answer({"status": "ready"})


async def metrics(site: Management, request: Request) -> Response:
    site.telemetry.readiness(list(site.failing()))  # what was told last may be a second old
    openmetrics = wants_openmetrics(b",".join(header_values(request, b"accept")).decode("latin-1"))
    return text_answer(site.telemetry.render(openmetrics=openmetrics), OPENMETRICS if openmetrics else CONTENT_TYPE)
