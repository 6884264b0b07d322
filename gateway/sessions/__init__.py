"""STATE: the sessions in Redis. The only room that imports redis.

endpoint.py   where Redis is: a URL into an endpoint; its password and TLS files as they are now
connect.py    an endpoint into a redis-py client; connections.py has the parts
sentinel.py   which server is the primary: what the sentinels say
cluster.py    the client of a cluster: each command to the master of its partition; slots.py has what is pure
keyspace.py   every key, its partition and its TTL, on one page
record.py     what a session is, and its text in Redis
useragent.py  what browsers say again and again of themselves, shortened
epochs.py     whether Redis still has what it had: a store that was rolled back lets nobody in
clocks.py     how far this machine's clock is from that of Redis
store.py      login, rotate, revoke, list, rate limits: one Lua script each, atomic
trail.py      the audit trail, as a stream
liveness.py   "is this session alive, this token not revoked?", batched by event-loop tick
wire.py       the kept connection that those batches travel on; cluster_wire.py, those of a cluster
link.py       one such connection, from its greeting to its loss; flights.py, one to a master of a cluster
resp.py       what is said on it, pure
scripts.py    the scripts, as Redis knows them
lua/          their texts; epoch.lua and record.lua stand before each of them
"""
