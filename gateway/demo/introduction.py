"""What the terminal says when the demo has started."""

from __future__ import annotations


def introduction(url: str, management: str, ttl: float) -> str:
    """Return where the demo is, who may sign in, and what to paste; `ttl` seconds is the life of an access token."""
    take = 'sed \'s/.*"%s":"\\([^"]*\\)".*/\\1/\''
    access, refresh = take % "access_token", take % "refresh_token"
    call = f'curl -si {url}/api/hello -H "Authorization: Bearer $A"'
    json = "-H 'Content-Type: application/json'"
    return f"""
tokengate demo: open {url} in a browser
(sample backend behind /api/, my devices at {url}/auth/account, metrics at http://{management}/metrics)

Sample user: demo / demo. Access tokens live for {ttl:.0f} seconds here.
Without a browser, paste one line after the other:

1. sign in, and call the backend with the token: it is told who calls
T=$(curl -s {url}/auth/login {json} -d '{{"username":"demo","password":"demo"}}'); \
A=$(echo "$T" | {access}); R=$(echo "$T" | {refresh}); {call}

2. {ttl + 1:.0f} seconds later: 401 expired_token, then a refresh, then the call again
sleep {ttl + 1:.0f}; {call}; echo; T=$(curl -s {url}/auth/token -d grant_type=refresh_token -d "refresh_token=$R"); \
A=$(echo "$T" | {access}); R=$(echo "$T" | {refresh}); {call}

3. sign out: the token has not expired, and is 401 revoked_token at once
curl -si -X POST {url}/auth/logout -H "Authorization: Bearer $A"; {call}; echo

Ctrl+C ends it; nothing is kept.

"""
