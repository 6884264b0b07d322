"""Names from outside in the names of Redis keys, and secrets in comparisons."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gateway
from gateway.sessions.keyspace import Keyspace

HOSTILE = st.text(st.sampled_from(":{}0afsu\r\n\x00*?[] \u00e9"), max_size=12) | st.sampled_from(
    ["a:{b}:alive:x", "{0}", "}{", "gw:{0}:session:", "0\r\nDEL x\r\n", "*", "alive:a", ":revoked:a", "session", ""]
)
KINDS = ["session", "not_before", "user", "revoked", "attempt"]


def key(kind: str, text: str) -> bytes:
    space = Keyspace("gw")
    return space.attempt("login-user", text) if kind == "attempt" else bytes(getattr(space, kind)(text))


@given(st.sampled_from(KINDS), HOSTILE, st.sampled_from(KINDS), HOSTILE)
def test_two_things_never_have_one_key_whatever_their_names(kind: str, text: str, other: str, name: str) -> None:
    assert (key(kind, text) == key(other, name)) == ((kind, text) == (other, name))


@given(st.sampled_from(KINDS), HOSTILE)
def test_a_name_cannot_move_its_key_to_another_partition_or_another_prefix(kind: str, text: str) -> None:
    """The hash tag of a cluster is between the first `{` and the next `}`, and those are ours."""
    made = key(kind, text)
    assert re.match(rb"gw:\{[0-9a-f]\}:%b:" % kind.replace("_", "-").encode(), made)
    tag = made[made.index(b"{") + 1 : made.index(b"}")]
    assert re.fullmatch(rb"[0-9a-f]", tag)


@given(HOSTILE)
def test_what_a_client_types_in_is_in_no_key_of_a_limit(text: str) -> None:
    assert re.fullmatch(rb"gw:\{[0-9a-f]\}:attempt:login-user:[A-Za-z0-9_-]{22}", key("attempt", text))


@pytest.mark.parametrize("prefix", ["", "a b", "a{b", "a}b", "a\n", "a*", "x" * 65, "\u00e9"])
def test_a_prefix_that_could_be_read_otherwise_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        Keyspace(prefix)


# --- comparisons ---

ROOT = Path(gateway.__file__).parent
AT_START = {"settings", "cli.py"}  # they compare what the operator wrote, before anyone can ask
SOURCES = [path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).parts[0] not in AT_START]
SECRET = re.compile(r"(^|_)(secret|password|passwd|mac|digest|signature|admin_token|refresh_token|hashed|expected)s?$")


def compared(node: ast.expr) -> str:
    """Return the last word of the name that an operand has."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=function):
            return compared(function)
        case ast.Subscript(value=value):
            return compared(value)
    return ""


def careless(source: str) -> list[int]:
    """Return the lines where something with a secret's name is compared byte by byte, and not with a constant."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            sides = [node.left, *node.comparators]
            constant = any(isinstance(side, ast.Constant) for side in sides)
            if not constant and any(SECRET.search(compared(side)) for side in sides):
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_secret_is_compared_in_a_time_that_tells_of_it(path: Path) -> None:
    """By hmac.compare_digest, or by the library that made the hash."""
    assert careless(path.read_text()) == []


def test_the_look_for_careless_comparisons_finds_them() -> None:
    assert careless("if token == other.admin_token: pass") == [1]
    assert careless("ok = hashlib.sha256(x).digest() != known") == [1]
    assert careless("ok = hmac.compare_digest(x.digest(), y.digest())") == []
