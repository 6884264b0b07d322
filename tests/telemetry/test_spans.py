"""Which requests are recorded, and how a step finds the span that it belongs to."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.errors import StoreUnavailable
from gateway.telemetry.spans import CURRENT, Parents, Sampler, Span, new_id, step, under
from tests.telemetry.turning import turning

TRACE, CALLER = b"4bf92f3577b34da6a3ce929d0e0e4736", b"00f067aa0ba902b7"
SAMPLED, UNSAMPLED = (b"00-%b-%b-%b" % (TRACE, CALLER, flags) for flags in (b"01", b"00"))


@pytest.mark.parametrize(
    ("parents", "trusted", "traceparent", "ratio", "recorded"),
    [
        # no parent: the ratio decides
        ("trusted", True, b"", 1.0, True),
        ("trusted", True, b"", 0.0, False),
        ("always", False, b"", 0.0, False),
        # a parent that counts decides alone
        ("trusted", True, SAMPLED, 0.0, True),
        ("trusted", True, UNSAMPLED, 1.0, False),
        ("always", False, SAMPLED, 0.0, True),
        ("always", False, UNSAMPLED, 1.0, False),
        # one that does not, does not
        ("trusted", False, SAMPLED, 0.0, False),
        ("trusted", False, UNSAMPLED, 1.0, True),
        ("never", True, SAMPLED, 0.0, False),
        ("never", True, UNSAMPLED, 1.0, True),
        # of the flags one bit is the sampled one (W3C Trace Context 3.2.2.5)
        ("always", False, SAMPLED[:-2] + b"03", 0.0, True),
        ("always", False, SAMPLED[:-2] + b"fe", 1.0, False),
    ],
)
def test_who_decides_that_a_request_is_recorded(
    parents: Parents, trusted: bool, traceparent: bytes, ratio: float, recorded: bool
) -> None:
    span = Sampler(ratio, parents, lambda _: None).begin(traceparent, trusted)
    assert (span is not None) == recorded
    if span is not None and traceparent:
        assert (span.trace_id, span.parent_id) == (TRACE, CALLER)


def test_the_ratio_is_that_of_what_is_drawn() -> None:
    drawn = iter([0.0, 0.249, 0.25, 0.99])
    sampler = Sampler(0.25, "trusted", lambda _: None, draw=lambda: next(drawn))
    assert [sampler.begin(b"", False) is not None for _ in range(4)] == [True, True, False, False]


def test_a_new_trace_has_an_id_of_its_own_and_no_parent() -> None:
    spans = [Sampler(1.0, "trusted", lambda _: None).begin(b"", False) for _ in range(100)]
    found = {span.trace_id for span in spans if span is not None}
    assert len(found) == 100
    assert all(re.fullmatch(rb"[0-9a-f]{32}", each) for each in found)
    assert {span.parent_id for span in spans if span is not None} == {b""}


def test_an_id_is_never_all_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.randbits", lambda bits: 0)
    assert new_id(8) == b"0000000000000001"
    assert new_id(16) == b"0" * 31 + b"1"


def test_a_child_is_of_the_same_trace_and_below_its_parent() -> None:
    ended: list[Span] = []
    span = Span(ended.append, TRACE, CALLER, "GET /", "server")
    child = span.child("GET", "client")
    child.finish("upstream_timeout")
    assert ended == [child]
    assert (child.trace_id, child.parent_id, child.error) == (TRACE, span.span_id, "upstream_timeout")
    assert child.end >= child.start >= span.start
    assert child.traceparent() == b"00-%b-%b-01" % (TRACE, child.span_id)


def test_a_step_without_a_span_records_nothing() -> None:
    with step("POST", "client") as span:
        assert span is None
    with under(None), step("POST", "client") as span:
        assert span is None


async def _work() -> None:
    with step("inner", "client", http__request__method="POST"):
        await asyncio.sleep(0)


@turning
async def test_a_step_belongs_to_the_span_of_its_task() -> None:
    ended: list[Span] = []
    one, other = (Span(ended.append, new_id(16), b"", name, "server") for name in ("one", "other"))

    async def serve(span: Span) -> None:
        with under(span), step("outer", "internal"):
            await asyncio.gather(_work(), _work())
        assert CURRENT.get() is None

    await asyncio.gather(serve(one), serve(other))
    for span in (one, other):
        (outer,) = [each for each in ended if each.parent_id == span.span_id]
        inner = [each for each in ended if each.parent_id == outer.span_id]
        assert [each.name for each in inner] == ["inner", "inner"]
        assert inner[0].attributes == {"http.request.method": "POST"}


def test_a_step_that_fails_has_the_code_of_the_failure_and_lets_it_out() -> None:
    ended: list[Span] = []
    span = Span(ended.append, TRACE, b"", "GET /", "server")
    for failure, error in ((StoreUnavailable("canary"), "store_unavailable"), (KeyError("canary"), "KeyError")):
        with pytest.raises(type(failure)), under(span), step("refresh", "internal"):
            raise failure
        assert ended[-1].error == error
