"""What the gateway tells its operator: metrics, logs, the audit trail. A leaf: it imports no other room.

metrics     counting, cheap enough for every request; the text that Prometheus scrapes
series      the table of all metrics, and how several workers' numbers become one
slots       the files through which the workers of one server see each other's numbers
process     what the kernel says of this process
logs        one JSON object a line, and the audit line
redaction   the net under the logs: what looks like a secret is blotted out
request_id  naming a request
"""

from gateway.telemetry.logs import Cause, audit, audit_sink, configure_logging
from gateway.telemetry.metrics import CONTENT_TYPE, Meter, Telemetry
from gateway.telemetry.request_id import new_request_id, valid_request_id

__all__ = (
    "CONTENT_TYPE",
    "Cause",
    "Meter",
    "Telemetry",
    "audit",
    "audit_sink",
    "configure_logging",
    "new_request_id",
    "valid_request_id",
)
