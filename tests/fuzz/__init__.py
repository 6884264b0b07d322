"""Fuzzing: one function a target, which takes bytes and fails where a law is broken.

target   what a target is, and all of them by name
tokens   tokens, keys and the strict readers
foreign  what other issuers publish and sign
paths    paths and targets
heads    headers, cookies, addresses: pure functions of the data plane
wires    whole connections: arbitrary requests, arbitrary answers, in arbitrary pieces
texts    configuration, users, webhooks, bodies, logs
corpus/  small inputs that are kept, a directory for each target: what was found, and what is hard to find

The tests here run every target over its samples, its corpus and mutations by Hypothesis; `make fuzz` runs them
under atheris (`python -m tests.fuzz --help`).
"""
