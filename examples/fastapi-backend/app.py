"""A shop's orders. It knows nothing of tokens or sessions: the gateway says who is calling.

The headers can be believed because nothing but the gateway reaches this server: it listens on this machine alone (in
a cluster a network policy does that), and the gateway drops whatever a client sends under these names.
"""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote

from fastapi import Depends, FastAPI, Header, HTTPException

app = FastAPI()
ORDERS = {1: {"owner": "u-1", "item": "a kettle"}, 2: {"owner": "u-2", "item": "a lamp"}}


@dataclass(frozen=True)
class Caller:
    """Who calls. `session` is one device of theirs."""

    user: str
    email: str
    roles: frozenset[str]
    session: str


def caller(
    x_auth_request_user: Annotated[str, Header()],
    x_auth_request_session: Annotated[str, Header()],
    x_auth_request_email: Annotated[str, Header()] = "",
    x_auth_request_groups: Annotated[str, Header()] = "",
) -> Caller:
    """Read the gateway's headers: lists are joined by commas, and what is not plain ASCII is percent-encoded."""
    roles = frozenset(unquote(role) for role in x_auth_request_groups.split(",") if role)
    return Caller(unquote(x_auth_request_user), unquote(x_auth_request_email), roles, x_auth_request_session)


@app.get("/api/orders")
def my_orders(who: Annotated[Caller, Depends(caller)]) -> dict[str, object]:
    mine = {number: order["item"] for number, order in ORDERS.items() if order["owner"] == who.user}
    return {"user": who.user, "email": who.email, "orders": mine}


@app.get("/api/orders/all")
def all_orders(who: Annotated[Caller, Depends(caller)]) -> dict[int, dict[str, str]]:
    if "staff" not in who.roles:
        raise HTTPException(403, "This is for the staff.")
    return ORDERS
