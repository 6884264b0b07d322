"""Who is this user? The only room that sees passwords, and it keeps none.

provider    what the rest of the gateway asks: an identity for a name and a password, or a refusal
webhook     the users are those of an existing backend, which is asked over HTTP
users_file  the users stand in a TOML file (small teams, demos, tests)
passwords   hashes: made with argon2id, checked also as bcrypt and scrypt, off the event loop
counted     what a rate limit counts as one place or one user
exchange    a token of another issuer into a user here
jwks        the keys of other issuers, fetched in the background
outbound    what the questions to other services have in common
fields      what may stand in an identity, whoever gives it
"""

from gateway.identity.provider import Identity, Provider
from gateway.identity.users_file import UsersFile
from gateway.identity.webhook import Webhook

__all__ = ("Identity", "Provider", "UsersFile", "Webhook")
