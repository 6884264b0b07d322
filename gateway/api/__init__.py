"""The control plane: the public HTTP API and the management API. Starlette; one file a noun.

login       POST /auth/login
token       POST /auth/token, and the token response
logout      POST /auth/logout
sessions    /auth/sessions, /auth/me
oauth       revocation, introspection, JWKS, metadata
account     /auth/account: the page for people
verify      /auth/verify: forward-auth for other proxies
admin       the admin API
health      livez, readyz, metrics
management  the application of the management listener
openapi     the public API as an OpenAPI document; openapi_management: the management listener's
services    what the public API is made of
answers     how a request reaches a handler and an outcome becomes an answer
body        reading a request's body, bounded and with one reading only
cookies     the refresh cookie, and which requests may use it
clients     who may introspect
"""

from starlette.applications import Starlette

from gateway.api import account, login, logout, oauth, sessions, token, verify
from gateway.api.answers import Table, application
from gateway.api.clients import Clients
from gateway.api.services import Services

__all__ = ("PUBLIC", "Clients", "Services", "create_api")

PUBLIC: Table = {
    "/auth/login": {"POST": login.login},
    "/auth/token": {"POST": token.token},
    "/auth/logout": {"POST": logout.logout},
    "/auth/sessions": {"GET": sessions.list_sessions, "DELETE": sessions.end_sessions},
    "/auth/sessions/{session_id}": {"DELETE": sessions.end_session},
    "/auth/me": {"GET": sessions.me},
    "/auth/revoke": {"POST": oauth.revoke},
    "/auth/introspect": {"POST": oauth.introspect},
    "/auth/account": {"GET": account.show, "POST": account.act},
    "/auth/account/{name}": {"GET": account.asset},
    "/auth/verify": {None: verify.verify},
    "/auth/verify/{original:path}": {None: verify.verify},
    "/.well-known/jwks.json": {"GET": oauth.jwks},
    "/.well-known/oauth-authorization-server": {"GET": oauth.metadata},
}


def create_api(services: Services) -> Starlette:
    """Return the application of contract section 4."""
    return application(services, PUBLIC)
