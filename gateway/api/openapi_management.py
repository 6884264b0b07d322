"""The management listener as an OpenAPI 3.1 document (`tokengate openapi --management`): pure, written by hand."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_SECONDS: Json = {"type": "integer", "description": "Unix seconds"}
_ADMIN: list[Json] = [{"adminToken": []}]
_ERRORS = {
    400: "`bad_request` or `invalid_request`",
    403: "`forbidden`: no admin token",
    404: "`no_route` (there is no admin token at all) or `not_found`",
    405: "`method_not_allowed`, with `Allow`",
    408: "`request_timeout`",
    409: "`bad_keys`: a key file cannot be used; the old keys stay",
    413: "`body_too_large`: a body may have 64 KiB",
    503: "`store_unavailable`, with `Retry-After`",
}
_STORE = (400, 403, 404, 503)


def management() -> Json:
    """Return the document, as JSON-ready data."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tokengate, management",
            "version": "1",
            "description": "Probes, metrics and the admin API, on a listener of their own (`management.bind`). Each "
            "call of the admin API leaves a line in the audit trail.",
        },
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "parameters": {"Actor": _said("X-Admin-Actor", "who asks"), "Reason": _said("X-Admin-Reason", "why")},
            "securitySchemes": {"adminToken": {"type": "http", "scheme": "bearer"}},
            "responses": {f"Error{status}": _error(text) for status, text in _ERRORS.items()},
        },
    }


def _paths() -> Json:
    status, unready = _content("Alive or ready", _object({"status": _TEXT})), _unready()
    metrics: Json = {"200": {"description": "Prometheus text", "content": {"text/plain": {"schema": _TEXT}}}}
    sessions = _content("The user's sessions", _object({"sessions": {"type": "array", "items": _ref("Session")}}))
    keys = _content("The kids that sign by now", {"type": "object", "additionalProperties": True})
    return {
        "/livez": {"get": _operation("livez", "The process answers", [], status)},
        "/readyz": {"get": _operation("readyz", "This replica can serve", [], status | unready)},
        "/metrics": {"get": _operation("metrics", "Metrics of all workers", [], metrics)},
        "/admin/users/{subject}/sessions": {
            "parameters": [_path("subject")],
            "get": _admin("adminListSessions", "A user's sessions", sessions, _STORE),
            "delete": _end_sessions(),
        },
        "/admin/sessions/{session_id}": {
            "parameters": [_path("session_id")],
            "delete": _admin("adminEndSession", "End a session", _nothing(), _STORE),
        },
        "/admin/revoke": {"post": _revoke()},
        "/admin/keys/reload": {"post": _admin("adminReloadKeys", "Read the keys again", keys, (400, 403, 404, 409))},
    }


def _end_sessions() -> Json:
    operation = _admin("adminEndSessions", "End all sessions of a user", _nothing(), _STORE)
    issuer: Json = {"name": "issuer", "in": "query", "schema": _TEXT, "description": "the user is one of this issuer's"}
    return operation | {"parameters": [*operation["parameters"], issuer]}


def _revoke() -> Json:
    token = _object({"token": _TEXT | {"minLength": 1}}) | {"additionalProperties": False}
    properties: Json = {"jti": _TEXT | {"minLength": 1, "maxLength": 255}, "exp": _SECONDS, "issuer": _TEXT}
    by_id: Json = {
        "type": "object",
        "required": ["jti", "exp"],
        "properties": properties,
        "additionalProperties": False,
    }
    body: Json = {"required": True, "content": {"application/json": {"schema": {"oneOf": [token, by_id]}}}}
    errors = (*_STORE, 408, 413)
    return _admin("adminRevoke", "Revoke a token", _nothing(), errors) | {"requestBody": body}


def _admin(name: str, summary: str, done: Json, errors: tuple[int, ...]) -> Json:
    said: list[Json] = [{"$ref": "#/components/parameters/Actor"}, {"$ref": "#/components/parameters/Reason"}]
    return _operation(name, summary, _ADMIN, done, errors) | {"parameters": said}


def _operation(name: str, summary: str, security: list[Json], done: Json, errors: tuple[int, ...] = ()) -> Json:
    refused = {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in errors}
    return {"operationId": name, "summary": summary, "security": security, "responses": done | refused}


def _content(text: str, schema: Json) -> Json:
    return {"200": {"description": text, "content": {"application/json": {"schema": schema}}}}


def _unready() -> Json:
    schema = _object({"status": _TEXT, "failing": {"type": "array", "items": _TEXT}})
    return {"503": {"description": "What fails", "content": {"application/json": {"schema": schema}}}}


def _nothing() -> Json:
    return {"204": {"description": "Done"}}


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}


def _said(name: str, text: str) -> Json:
    schema = _TEXT | {"maxLength": 200, "pattern": r"^[^\u0000-\u001f\u007f]*$"}
    return {"name": name, "in": "header", "schema": schema, "description": f"{text}; it goes into the audit trail"}


def _error(text: str) -> Json:
    header: Json = {"description": "the code", "required": True, "schema": _TEXT}
    content: Json = {"application/json": {"schema": _ref("Error")}}
    return {"description": text, "headers": {"X-Gateway-Error": header}, "content": content}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _schemas() -> Json:
    return {
        "Error": _object({"error": _TEXT, "error_description": _TEXT}) | {"additionalProperties": False},
        "Session": _object(
            {
                "id": _TEXT,
                "device": _TEXT,
                "user_agent": _TEXT,
                "ip": _TEXT,
                "created_at": _SECONDS,
                "last_used_at": _SECONDS,
                "expires_at": {"type": "integer", "description": "Unix seconds; 0 = never"},
            }
        ),
    }
