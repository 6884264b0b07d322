"""The clients that applications install, against a real gateway, a real Redis and a backend that echoes.

site       all three as one command, for tests that are not written in Python
"""
