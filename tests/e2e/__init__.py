"""The gateway as its users meet it: processes of their own, real sockets, a real Redis, real backends.

harness.py   starts and ends `tokengate serve`: keys, users, configuration, log
backends.py  what stands behind it: nginx, and a raw backend that records every byte and can misbehave
wire.py      a client that sends what it is told, byte for byte, and reads answers strictly
"""
