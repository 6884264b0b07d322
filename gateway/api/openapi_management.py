"""The management listener as an OpenAPI 3.1 document (`tokengate openapi --management`): pure, written by hand."""

from __future__ import annotations

from gateway.api.openapi_words import SECONDS, TEXT, Json, content, error, members, nothing, ref, session

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
            "schemas": {"Error": error(), "Session": session()},
            "parameters": {"Actor": _said("X-Admin-Actor", "who asks"), "Reason": _said("X-Admin-Reason", "why")},
            "securitySchemes": {"adminToken": {"type": "http", "scheme": "bearer"}},
            "responses": {f"Error{status}": _error(text) for status, text in _ERRORS.items()},
        },
    }


def _paths() -> Json:
    status, unready = content("Alive or ready", members({"status": TEXT})), _unready()
    metrics: Json = {"200": {"description": "Prometheus text", "content": {"text/plain": {"schema": TEXT}}}}
    sessions = content("The user's sessions", members({"sessions": {"type": "array", "items": ref("Session")}}))
    keys = content("The kids that sign by now", {"type": "object", "additionalProperties": True})
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
            "delete": _admin("adminEndSession", "End a session", nothing(), _STORE),
        },
        "/admin/revoke": {"post": _revoke()},
        "/admin/keys/reload": {"post": _admin("adminReloadKeys", "Read the keys again", keys, (400, 403, 404, 409))},
    }


def _end_sessions() -> Json:
    operation = _admin("adminEndSessions", "End all sessions of a user", nothing(), _STORE)
    issuer: Json = {"name": "issuer", "in": "query", "schema": TEXT, "description": "the user is one of this issuer's"}
    return operation | {"parameters": [*operation["parameters"], issuer]}


def _revoke() -> Json:
    token = members({"token": TEXT | {"minLength": 1}}) | {"additionalProperties": False}
    properties: Json = {"jti": TEXT | {"minLength": 1, "maxLength": 255}, "exp": SECONDS, "issuer": TEXT}
    by_id: Json = {
        "type": "object",
        "required": ["jti", "exp"],
        "properties": properties,
        "additionalProperties": False,
    }
    body: Json = {"required": True, "content": {"application/json": {"schema": {"oneOf": [token, by_id]}}}}
    errors = (*_STORE, 408, 413)
    return _admin("adminRevoke", "Revoke a token", nothing(), errors) | {"requestBody": body}


def _admin(name: str, summary: str, done: Json, errors: tuple[int, ...]) -> Json:
    said: list[Json] = [{"$ref": "#/components/parameters/Actor"}, {"$ref": "#/components/parameters/Reason"}]
    return _operation(name, summary, _ADMIN, done, errors) | {"parameters": said}


def _operation(name: str, summary: str, security: list[Json], done: Json, errors: tuple[int, ...] = ()) -> Json:
    refused = {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in errors}
    return {"operationId": name, "summary": summary, "security": security, "responses": done | refused}


def _unready() -> Json:
    schema = members({"status": TEXT, "failing": {"type": "array", "items": TEXT}})
    return {"503": {"description": "What fails", "content": {"application/json": {"schema": schema}}}}


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": TEXT}


def _said(name: str, text: str) -> Json:
    schema = TEXT | {"maxLength": 200, "pattern": r"^[^\u0000-\u001f\u007f]*$"}
    return {"name": name, "in": "header", "schema": schema, "description": f"{text}; it goes into the audit trail"}


def _error(text: str) -> Json:
    header: Json = {"description": "the code", "required": True, "schema": TEXT}
    content: Json = {"application/json": {"schema": ref("Error")}}
    return {"description": text, "headers": {"X-Gateway-Error": header}, "content": content}
