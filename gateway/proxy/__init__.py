"""The data plane: requests in, checked, and on to a backend, and their answers back.

protocol   the uvicorn HTTP protocol class: bytes of a client become requests, in their order
client     one client connection: where it comes from, its pace, its deadlines and its end
exchange   one request and its answer, in flight
refreshing an exchange whose token has expired gets a new one and goes on
ending     how an exchange ends without its backend, or before its time
outgoing   what the backend gets: the head on its way out
refusal    answers of the gateway's own
cors       what pages of other origins are told: pure
cross_origin their requests, and their preflights
control    one request of the control plane, handed to the ASGI application
headers    what becomes of each header on the way through: pure functions over raw headers
paths      the one normal form of a path, and which paths are refused: pure
routes     the compiled route table: pure
connection one connection to a backend
answer_head the head of a backend's answer: what passes, how the body is framed: pure
trailers   the trailer section of an answer
plain      the plainest answer, read without a parser: pure
upstream   the pool of connections to one address of a backend
balancer   which backend of a route gets an exchange, and who waits
resolver   names of backends and the addresses behind them
raw_head   where a head begins and ends in what was read: pure
renewal    a refresh inside the gateway
streams    long streams end with their session
tunnel     WebSocket and other upgrades
trust      whose X-Forwarded-* and Forwarded are believed
forwarded  who the client is, as trusted proxies say: pure
proxy_protocol  who the client is, as a load balancer in front says
head       a request head, read and routed
pace       how far behind the worker is: what tells overload
wheel      one timer for every deadline of a worker
plane      what all connections of a worker share
"""
