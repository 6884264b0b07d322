"""Faults of Redis and of the way to it, under load, against real gateways.

python -m tests.chaos           every fault in turn, and two tables (`make chaos`)
pytest tests/chaos              the same faults, shorter

proxy       the way to Redis: a TCP proxy that delays, loses, cuts and falsifies
servers     Redis servers that are killed, restored, demoted; the backend
client      a client's kept connection
ledger      what clients were answered, and every law that an answer broke
load        the clients
sessions    the sessions that they use, and those that have ended
world       two gateways, their proxies, their Redis
faults      the table of faults
blows       the table of what befalls a primary behind sentinels, and a cluster
struck      one of these, and its laws
run         one fault, from its beginning to the return of the service, and its laws
report      the tables
"""
