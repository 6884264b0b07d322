"""What the gateway tells its operator: metrics, logs, the audit trail. A leaf: it imports no other room.

metrics     counting, cheap enough for every request; the text that Prometheus scrapes
series      the table of all metrics, and how several workers' numbers become one
slots       the files through which the workers of one server see each other's numbers
process     what the kernel says of this process
logs        one JSON object a line, and the audit line
redaction   the net under the logs: what looks like a secret is blotted out
request_id  naming a request
spans       the steps of a recorded request, and which requests are recorded
tracing     spans on their way to a collector; the one importer of OpenTelemetry, itself imported only where it is on
access      the access log
"""

from gateway.telemetry.logs import AuditEvent, Cause, audit, audit_sink, configure_logging, set_level
from gateway.telemetry.metrics import CONTENT_TYPE, OPENMETRICS, Meter, Telemetry, wants_openmetrics
from gateway.telemetry.request_id import new_request_id, valid_request_id

__all__ = (
    "CONTENT_TYPE",
    "OPENMETRICS",
    "AuditEvent",
    "Cause",
    "Meter",
    "Telemetry",
    "audit",
    "audit_sink",
    "configure_logging",
    "new_request_id",
    "set_level",
    "valid_request_id",
    "wants_openmetrics",
)
