"""Request ids: unique, and safe to pass on."""

from __future__ import annotations

import os

import pytest

from gateway.telemetry import new_request_id, valid_request_id


def test_a_thousand_ids_are_distinct_and_valid() -> None:
    made = {new_request_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(valid_request_id(name) for name in made)


def test_a_forked_process_gives_other_ids_than_its_parent() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, new_request_id())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read, 100)
    os.close(read)
    os.close(write)
    assert theirs.split(b"-")[0] != new_request_id().split(b"-")[0]


@pytest.mark.parametrize("value", [b"a", b"A-b_c.9", b"x" * 128])
def test_a_plain_name_from_outside_is_taken_over(value: bytes) -> None:
    assert valid_request_id(value)


@pytest.mark.parametrize("value", [b"", b"x" * 129, b"a b", b"a\n", b"a\r\nb: c", b'a"', b"\xff", b"a,b", b"a/b"])
def test_a_name_that_could_break_a_header_or_a_log_line_is_not(value: bytes) -> None:
    assert not valid_request_id(value)
