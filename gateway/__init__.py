"""An authenticating reverse proxy: it signs users in, checks every request's token, and ends sessions at once.

    cli         the command line; operators: its part for who has access to Redis; terminal: what they share
    server      how processes are started; supervisor: several of them; drain: how one ends; reload: new settings
    lifespan    the ASGI application: its lifespan builds a worker and ends it
    app         the composition root: the only file that knows every room
    tls         the certificate of the listener, replaced while it serves
    keys        the keys of a worker: read, taken up, told of
    watch       mounted files, looked at while the gateway serves
    parts       what a worker is made of, each part from the settings
    backends    what routes say of their backends, as groups of upstreams
    issuers     what the settings say of other issuers, as rules and sources of keys
    settings/   one TOML file, the environment and mounted secrets, read once
    proxy/      the data plane: requests of clients, passed to backends
    api/        the control plane: sign-in, refresh, sessions, revocation, management
    web/        the pages for people: pure
    demo/       what `tokengate demo` shows: a sample backend and its page
    traced      the gate and the store as a recorded request passes them
    gate        raw credentials and a route's rule -> who is calling
    attempts    how often something may be tried
    grants      who gets tokens: sign-in, exchange and refresh
    sessions/   state: who is signed in, kept in Redis
    identity/   who a user is: a webhook, a users file, or another issuer
    tokens/     pure: keys, access tokens, refresh tokens and the rules of their rotation
    telemetry/  metrics, logs, the audit trail
    errors      every answer other than success

Imports go one way: cli, app, {api, proxy}, {gate, grants}, {sessions, identity}, tokens, telemetry, errors.
"""

__version__ = "0.1.0"
