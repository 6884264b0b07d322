"""A long run in short: much traffic against real gateways, whose every answer, counter and resource must add up.

client     a fast HTTP client: one kept connection
traffic    what the clients do, and what each answer must be
resources  memory, descriptors, keys and counters, before and after
overload   four times what a worker can do
__main__   make soak: the whole of it, and its tables

`test_soak.py` runs the same with small numbers in CI.
"""
