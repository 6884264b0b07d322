"""Lines of the access log: which requests have one, what they look like, and that writing one never waits."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from gateway.telemetry import access
from gateway.telemetry.access import KEPT, PATH_LIMIT, PIPE_BUF, AccessLog, Lines
from tests.telemetry.turning import turning


class Kept:
    """Keeps lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.left_out = 0
        self.full = False

    def add(self, line: bytes) -> bool:
        if self.full:
            self.left_out += 1
            return False
        self.lines.append(line)
        return True

    def last(self) -> dict[str, Any]:
        assert self.lines[-1].endswith(b"\n")
        assert self.lines[-1].count(b"\n") == 1
        return dict(json.loads(self.lines[-1]))


@pytest.fixture
def out() -> Kept:
    return Kept()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


# --- which requests ---


def test_what_is_not_sampled_is_logged_all_the_same_where_it_always_is(out: Kept) -> None:
    log = AccessLog(out, sample=0.0)
    assert not any(log.wants(b"%d" % n, ours=True, always=False) for n in range(1000))
    assert log.wants(b"x", ours=True, always=True)


@pytest.mark.parametrize("sample", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", [b"0a1b2c3d4e5f-%x", b"%032x", b"req-%d"])
def test_names_that_count_up_are_sampled_at_the_ratio(out: Kept, sample: float, name: bytes) -> None:
    log = AccessLog(out, sample=sample)
    number = 100_000
    wanted = sum(log.wants(name % n, ours=True, always=False) for n in range(number))
    assert abs(wanted / number - sample) < 0.01


def test_a_name_is_sampled_alike_everywhere_and_a_smaller_part_is_of_the_larger(out: Kept) -> None:
    one, other, more = AccessLog(out, sample=0.1), AccessLog(Kept(), sample=0.1), AccessLog(out, sample=0.3)
    names = [b"name-%d" % n for n in range(2000)]
    mine = {name for name in names if one.wants(name, ours=True, always=False)}
    assert mine == {name for name in names if other.wants(name, ours=True, always=False)}
    assert mine < {name for name in names if more.wants(name, ours=True, always=False)}


def test_a_name_that_a_client_chose_does_not_decide(out: Kept) -> None:
    drawn = iter([0.1, 0.9, 0.1])
    log = AccessLog(out, sample=0.5, draw=lambda: next(drawn))
    assert [log.wants(b"chosen", ours=False, always=False) for _ in range(3)] == [True, False, True]


def test_of_many_lines_so_many_a_second_are_written_and_the_next_says_how_many_were_not(
    out: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(access, "perf_counter", lambda: now[0])
    log = AccessLog(out, per_second=10)
    assert [log.wants(b"x", ours=True, always=True) for _ in range(25)] == [True] * 10 + [False] * 15
    now[0] += 0.25
    assert [log.wants(b"x", ours=True, always=True) for _ in range(4)] == [True, True, False, False]
    log.write({**log.begin(), "path": "/a"})
    assert out.last()["left_out"] == 17
    log.write({**log.begin(), "path": "/a"})
    assert "left_out" not in out.last()
    now[0] += 3600  # what was not used does not add up
    assert sum(log.wants(b"x", ours=True, always=True) for _ in range(100)) == 10


def test_what_a_line_that_is_itself_left_out_would_have_said_is_said_by_the_next(out: Kept) -> None:
    log = AccessLog(out)
    out.left_out, out.full = 5, True
    log.write(log.begin())
    log.write(log.begin())
    out.full = False
    log.write(log.begin())
    assert out.last()["left_out"] == 7
    assert out.left_out == 0


# --- lines ---


def test_a_line_is_one_json_object_as_the_other_logs_are(out: Kept) -> None:
    log = AccessLog(out)
    log.write({**log.begin(), "status": 200, "seconds": 0.25, "path": 'a"\\\n\x00'})
    line = out.last()
    assert list(line) == ["ts", "level", "logger", "message", "status", "seconds", "path"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
    assert (line["level"], line["logger"], line["message"]) == ("info", "gateway.access", "request")
    assert line["path"] == 'a"\\\n\x00'


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"/a/b", "/a/b"),
        (b"/x\x1b[31m\x9b", "/x\x1b[31m\\u009b"),  # JSON escapes the first, we the second
        (b"/\xff\xc3\xa9", "/\u00ff\u00c3\u00a9"),
        (b"/r/eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln", "/r/[redacted]"),
        (b"/a" * 400, "/a" * 255 + "/…"),
    ],
)
def test_a_path_is_cut_and_cleaned(out: Kept, raw: bytes, shown: str) -> None:
    log = AccessLog(out)
    assert [log.path(raw), log.path(raw)] == [shown, shown]


def test_paths_are_remembered_within_a_bound(out: Kept) -> None:
    log = AccessLog(out)
    for n in range(5000):
        assert log.path(b"/%d" % n) == f"/{n}"
    assert len(log._paths) <= 1024
    log.path(b"/" + b"x" * 300)
    assert all(len(path) <= 256 for path in log._paths)


def test_no_line_is_longer_than_what_a_pipe_takes_at_once(out: Kept) -> None:
    log = AccessLog(out)
    path = log.path(b"/" + b"\x9b" * 30_000)
    assert len(path) <= 6 * PATH_LIMIT
    log.write({**log.begin(), "path": path + "x" * 4000, "subject": "\u00e9" * 255, "status": 200})
    assert len(out.lines[-1]) <= PIPE_BUF
    assert out.last()["status"] == 200


# --- writing ---


@turning
async def test_lines_are_written_once_a_turn_whole_and_in_their_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    lines = Lines(asyncio.get_running_loop(), writing)
    for n in range(3):
        lines.add(b"%d\n" % n)
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 100)
    await asyncio.sleep(0)
    assert os.read(reading, 100) == b"0\n1\n2\n"


@turning
async def test_a_write_is_of_whole_lines_and_no_larger_than_a_pipe_takes_at_once(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    write = os.write

    def noted(fd: int, data: bytes) -> int:
        sizes.append(len(data))
        assert data.endswith(b"\n")
        return write(fd, data)

    monkeypatch.setattr(os, "write", noted)
    lines = Lines(asyncio.get_running_loop(), pipe[1])
    for _ in range(100):
        lines.add(b"x" * 299 + b"\n")
    await asyncio.sleep(0)
    assert sum(sizes) == 30_000
    assert max(sizes) <= PIPE_BUF
    assert len(sizes) == 8


@turning
async def test_a_pipe_that_nobody_reads_keeps_lines_within_a_bound_and_never_waits(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    lines = Lines(asyncio.get_running_loop(), writing)
    line = b"x" * 999 + b"\n"
    taken = sum(lines.add(line) for _ in range(1000))
    assert 300 <= taken < 400
    assert lines.left_out == 1000 - taken
    assert lines._size <= KEPT
    os.set_blocking(reading, False)
    found = b""
    while len(found) < taken * 1000:
        with suppress(BlockingIOError):
            found += os.read(reading, 1 << 16)
        await asyncio.sleep(0.01)
    assert found == line * taken


@turning
async def test_a_write_that_takes_a_part_is_gone_on_with(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    lines = Lines(asyncio.get_running_loop(), pipe[1])
    for n in range(10):
        lines.add(b"line %d\n" % n)
    await asyncio.sleep(0)
    assert os.read(pipe[0], 1000) == b"".join(b"line %d\n" % n for n in range(10))


@turning
async def test_a_disk_that_is_full_loses_lines_and_nothing_else(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    lines = Lines(asyncio.get_running_loop(), pipe[1])
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert lines.add(b"lost\n")
        await asyncio.sleep(0)
    assert lines.left_out == 1
    lines.add(b"kept\n")
    await asyncio.sleep(0)
    assert os.read(pipe[0], 100) == b"kept\n"


@turning
async def test_the_end_writes_what_is_left_and_what_was_left_out(pipe: tuple[int, int]) -> None:
    lines = Lines(asyncio.get_running_loop(), pipe[1])
    lines.add(b"{}\n")
    lines.left_out = 3
    lines.close()
    last = json.loads(os.read(pipe[0], 1000).splitlines()[-1])
    assert (last["logger"], last["left_out"]) == ("gateway.access", 3)
