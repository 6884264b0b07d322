"""What tokens say and which of them are good. Pure: no I/O, no clock, no await; `now` is an argument.

claims    what a verified access token says
strict    base64url and JSON read in one way only
keyfile   one key file -> one key, bound to one algorithm
keyring   kid -> key; which still verify; JWKS; new keys
schedule  which key signs when, and until when each is needed
jws       the compact signed form of RFC 7515, written and read
signer    claims -> access JWT
verifier  access JWT + keyring + now -> claims, or a GatewayError; remembers what it verified
memory    what was verified, bounded
members   one member of a claims object, of the type that it must have
keyset    the public keys of another issuer, from its JWK Set
foreign   tokens of other issuers: which keys they meet, what they say in this gateway's terms
refresh   the refresh token: its two formats, minted from (session, counter)
rotation  the rotation rules as a table
access    what a route asks of a token
metadata  the authorization server's metadata of RFC 8414
"""
