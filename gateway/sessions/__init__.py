"""STATE: the sessions in Redis. The only room that imports redis.

connect.py    where Redis is: a URL into an endpoint, an endpoint into a redis-py client
keyspace.py   every key, its partition and its TTL, on one page
record.py     what a session is, and its text in Redis
useragent.py  what browsers say again and again of themselves, shortened
epochs.py     whether Redis still has what it had: a store that was rolled back lets nobody in
store.py      login, rotate, revoke, list, rate limits: one Lua script each, atomic
liveness.py   "is this session alive, this token not revoked?", batched by event-loop tick
wire.py       the connection that those batches travel on
resp.py       what is said on it, pure
scripts.py    the scripts, as Redis knows them
lua/          their texts; epoch.lua and record.lua stand before each of them
"""
