"""The public API as an OpenAPI 3.1 document (`tokengate openapi`): pure, written by hand.

The words are the contract's. The tests hold it against the routes that the application has.
"""

from __future__ import annotations

from gateway.api.openapi_words import (
    SECONDS,
    SECONDS_OR_NEVER,
    TEXT,
    Json,
    content,
    error,
    members,
    nothing,
    ref,
    session,
)
from gateway.tokens.metadata import TOKEN_EXCHANGE

_FORM = "application/x-www-form-urlencoded"
_BEARER: list[Json] = [{"accessToken": []}]
_OPEN: list[Json] = []

_ERRORS = {
    400: "`bad_request`, `invalid_request`, `invalid_grant`, `unsupported_grant_type`, `invalid_scope`, `..._target`",
    401: "`missing_token`, `expired_token`, `revoked_token`, `invalid_token`, `invalid_credentials`, `invalid_client`",
    403: "`insufficient_scope` or `csrf_rejected`",
    404: "`no_route` or `not_found`",
    405: "`method_not_allowed`, with `Allow`",
    408: "`request_timeout`",
    413: "`body_too_large`: a body may have 64 KiB",
    429: "`too_many_attempts`, with `Retry-After`",
    503: "`store_unavailable` or `draining`, with `Retry-After`, or `identity_unavailable`",
}
# What an error has beside its code, by status, and whether always
_ERROR_HEADERS: dict[int, tuple[str, bool, str]] = {
    401: ("WWW-Authenticate", False, "RFC 6750 3; not with `invalid_credentials`"),
    405: ("Allow", True, "RFC 9110 10.2.1"),
    429: ("Retry-After", True, "seconds"),
    503: ("Retry-After", False, "seconds"),
}
_BODY = (400, 408, 413)
_GUARDED = (401, 503)


def document() -> Json:
    """Return the document, as JSON-ready data."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tokengate",
            "version": "1",
            "description": "Sign-in, refresh, sessions and revocation. Every answer has `Cache-Control: no-store`. "
            "Whatever the operation, what is not valid HTTP gets 400 `bad_request`, a head that is too large 431 "
            "`headers_too_large`, a method that is not served 405 `method_not_allowed`, and whoever comes to a gateway "
            "that has too much to do 503 `overloaded`, each in the shape of `Error`.",
        },
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": _security_schemes(),
            "responses": {f"Error{status}": _error(status, text) for status, text in _ERRORS.items()},
        },
    }


def _paths() -> Json:
    return {
        "/auth/login": {"post": _login()},
        "/auth/token": {"post": _token()},
        "/auth/logout": {"post": _logout()},
        "/auth/sessions": {"get": _list_sessions(), "delete": _end_sessions()},
        "/auth/sessions/{session_id}": {
            "delete": _end_session(),
            "parameters": [_path("session_id", "a session's id")],
        },
        "/auth/me": {"get": _me()},
        "/auth/revoke": {"post": _revoke()},
        "/auth/introspect": {"post": _introspect()},
        "/auth/account": {"get": _account_page(), "post": _account_form()},
        "/auth/account/{name}": {"get": _asset(), "parameters": [_path("name", "a file of the page")]},
        "/auth/verify": _verify(),
        "/auth/verify/{original}": _verify() | {"parameters": [_path("original", "the original path (Envoy)")]},
        "/.well-known/jwks.json": {"get": _jwks()},
        "/.well-known/oauth-authorization-server": {"get": _metadata()},
    }


def _login() -> Json:
    properties: Json = {
        "username": TEXT | {"maxLength": 255},
        "password": TEXT | {"format": "password", "description": "at most 1024 bytes of UTF-8"},
        "device": TEXT | {"maxLength": 255, "description": "a name of the device; a new login on it ends the old one"},
        "refresh_in": {"enum": ["body", "cookie"], "default": "body"},
    }
    schema: Json = {"type": "object", "required": ["username", "password"], "properties": properties}
    body: Json = {"required": True, "content": {"application/json": {"schema": schema}}}
    done = _tokens("Signed in")
    return _operation("login", "Sign in", _OPEN, done, (*_BODY, 401, 403, 429, 503), body)


def _token() -> Json:
    properties: Json = {
        "grant_type": {"enum": ["refresh_token", TOKEN_EXCHANGE]},
        "refresh_token": TEXT | {"description": "left out where the refresh cookie is sent"},
    } | _exchange_properties()
    body = _parameters_body(["grant_type"], properties)
    done = _tokens("The new tokens; after a refresh the refresh token the way it came")
    security: list[Json] = [{}, {"refreshCookie": []}]
    summary = "Refresh (RFC 6749 6), or exchange a token of another issuer (RFC 8693)"
    return _operation("refresh", summary, security, done, (*_BODY, 403, 429, 503), body)


def _exchange_properties() -> Json:
    """The parameters of RFC 8693 2.1, for grant_type token-exchange alone."""
    kind = "urn:ietf:params:oauth:token-type:"
    return {
        "subject_token": TEXT | {"description": "for an exchange: a token of an issuer that allows it"},
        "subject_token_type": {"enum": [f"{kind}access_token", f"{kind}jwt", f"{kind}id_token"]},
        "requested_token_type": {"enum": [f"{kind}access_token", f"{kind}jwt"]},
        "audience": TEXT | {"description": "the gateway's own, tokens.audience"},
        "scope": TEXT | {"description": "part of the subject token's"},
        "device": TEXT | {"maxLength": 255},
        "refresh_in": {"enum": ["body", "cookie"], "default": "body"},
    }


def _logout() -> Json:
    body = _parameters_body([], {"refresh_token": TEXT}) | {"required": False}
    security: list[Json] = [*_BEARER, {"refreshCookie": []}, {}]
    errors = (*_BODY, 401, 403, 503)
    return _operation("logout", "End the session that the credential names", security, nothing(), errors, body)


def _list_sessions() -> Json:
    schema: Json = {"type": "array", "items": ref("Session")}
    done = content("The caller's sessions", members({"sessions": schema}))
    return _operation("listSessions", "My sessions", _BEARER, done, _GUARDED)


def _end_sessions() -> Json:
    only: Json = {"name": "except", "in": "query", "schema": {"const": "current"}, "description": "keep this session"}
    operation = _operation("endSessions", "Sign out everywhere", _BEARER, nothing(), (400, *_GUARDED))
    return operation | {"parameters": [only]}


def _end_session() -> Json:
    return _operation("endSession", "End one of my sessions", _BEARER, nothing(), (*_GUARDED, 400, 404))


def _me() -> Json:
    return _operation("me", "The claims of my access token", _BEARER, content("Claims", ref("Claims")), _GUARDED)


def _revoke() -> Json:
    body = _parameters_body(["token"], {"token": TEXT, "token_type_hint": TEXT})
    done: Json = {"200": {"description": "Revoked, or not known"}}
    return _operation("revoke", "Revoke a token (RFC 7009)", _OPEN, done, (*_BODY, 503), body)


def _introspect() -> Json:
    body = _parameters_body(["token"], {"token": TEXT, "token_type_hint": TEXT})
    active: Json = {"type": "object", "required": ["active"], "properties": {"active": {"type": "boolean"}}}
    done = content("`active` alone, or with the claims", active | {"additionalProperties": True})
    security: list[Json] = [{"client": []}]
    return _operation("introspect", "Ask about a token (RFC 7662)", security, done, (*_BODY, 401, 429, 503), body)


def _account_page() -> Json:
    note: Json = {"name": "note", "in": "query", "schema": TEXT, "description": "what has just been done"}
    security: list[Json] = [{}, {"refreshCookie": []}]
    done = _html("The user's devices, or the form to sign in")
    page = _operation("accountPage", "The page for people", security, done | _told(400, 503), ())
    return page | {"parameters": [note]}


def _account_form() -> Json:
    does: Json = {"enum": ["sign-in", "end", "end-others", "end-all"]}
    properties: Json = {"do": does, "username": TEXT, "password": TEXT, "id": TEXT | {"description": "a session"}}
    schema: Json = {"type": "object", "required": ["do"], "properties": properties}
    body: Json = {"required": True, "content": {_FORM: {"schema": schema}}}
    done: Json = {"303": {"description": "Done: back to the page"}} | _html("The session of the cookie is over")
    refused = _told(400, 401, 403, 404, 408, 413, 429, 503)
    security: list[Json] = [{}, {"refreshCookie": []}]
    return _operation("accountForm", "One of the page's forms", security, done | refused, (), body)


def _asset() -> Json:
    found: Json = {"200": {"description": "Styles, script or icon"}}
    return _operation("accountAsset", "A file of the account page", _OPEN, found, (400, 404))


def _told(*statuses: int) -> Json:
    return {str(status): _html("What went wrong, in words")["200"] for status in statuses}


def _html(text: str) -> Json:
    return {"200": {"description": text, "content": {"text/html": {"schema": TEXT}}}}


def _verify() -> Json:
    done: Json = {"200": {"description": "Allowed; the identity headers are set"}}
    security: list[Json] = [*_BEARER, {}]
    methods = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
    summary = "Decide for another proxy (forward-auth)"
    return {m: _operation(f"verify_{m}", summary, security, done, (400, 401, 403, 404, 405, 503)) for m in methods}


def _jwks() -> Json:
    keys = members({"keys": {"type": "array", "items": {"type": "object"}}})
    return _operation("jwks", "Public keys (RFC 7517)", _OPEN, content("A JWK Set", keys), ())


def _metadata() -> Json:
    done = content("Metadata", members({"issuer": TEXT}))
    return _operation("metadata", "Server metadata (RFC 8414)", _OPEN, done, ())


def _operation(
    name: str, summary: str, security: list[Json], done: Json, errors: tuple[int, ...], body: Json | None = None
) -> Json:
    refused = {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in sorted(errors)}
    operation: Json = {"operationId": name, "summary": summary, "security": security, "responses": done | refused}
    return operation | ({"requestBody": body} if body else {})


def _parameters_body(required: list[str], properties: Json) -> Json:
    schema: Json = {"type": "object", "required": required, "properties": properties}
    return {"required": True, "content": {kind: {"schema": schema} for kind in (_FORM, "application/json")}}


def _tokens(text: str) -> Json:
    return content(text, ref("TokenResponse"))


def _path(name: str, text: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": TEXT, "description": text}


def _error(status: int, text: str) -> Json:
    headers = {"X-Gateway-Error": _header("the code")}
    if status in _ERROR_HEADERS:
        name, always, meaning = _ERROR_HEADERS[status]
        headers[name] = _header(meaning, always)
    return {"description": text, "headers": headers, "content": {"application/json": {"schema": ref("Error")}}}


def _header(text: str, always: bool = True) -> Json:
    return {"description": text, "required": always, "schema": TEXT}


def _schemas() -> Json:
    return {
        "Error": error(),
        "TokenResponse": members(
            {
                "access_token": TEXT | {"description": "absent where it went into the access cookie"},
                "token_type": {"const": "Bearer"},
                "expires_in": {"type": "integer", "description": "seconds"},
                "access_token_expires_at": SECONDS,
                "refresh_token": TEXT | {"description": "absent where it went into the cookie"},
                "refresh_token_expires_at": SECONDS_OR_NEVER,
                "session_id": TEXT,
                "scope": TEXT,
                "issued_token_type": TEXT | {"description": "after an exchange (RFC 8693 2.2.1)"},
            },
            optional=frozenset({"access_token", "refresh_token", "issued_token_type"}),
        ),
        "Session": session(current={"type": "boolean"}),
        "Claims": members(
            {
                "iss": TEXT,
                "sub": TEXT,
                "aud": {"oneOf": [TEXT, {"type": "array", "items": TEXT}]},
                "exp": SECONDS,
                "iat": SECONDS,
                "jti": TEXT | {"description": "may be absent from a token of another issuer"},
                "sid": TEXT | {"description": "absent from a token of another issuer"},
                "roles": {"type": "array", "items": TEXT},
                "scope": TEXT,
            },
            optional=frozenset({"jti", "sid"}),
        ),
    }


def _security_schemes() -> Json:
    return {
        "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT (RFC 9068)"},
        "refreshCookie": {"type": "apiKey", "in": "cookie", "name": "__Secure-refresh"},
        "client": {"type": "http", "scheme": "basic"},
    }
