"""The tables of docs/configuration.md, from the settings' models: what a key is for stands there, and only there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from docsite.marks import between, table
from gateway.reload import takes
from gateway.settings import Settings, cors, values
from gateway.settings.environment import PREFIX
from gateway.settings.files import SECRETS
from gateway.settings.load import _model_at

HEAD = ("key", "default", "allowed", "changed by", "")
LISTS = ("routes", "issuers")  # tables of which there may be several
_SECURE = "`https://` URL, `http://` on a loopback host"
WORDS: dict[Callable[..., Any] | None, str] = {  # what reads a value -> what it takes
    values.duration: "duration",
    values.lifetime: "duration, 0, or 1s or more",
    values.size: "size",
    values.address: "`host:port`",
    values.origin: "`http(s)://host:port`",
    values.network: "network (CIDR)",
    values.secure_url: _SECURE,
    values.issuer_url: _SECURE,
    cors.page_origin: "origin: `https://host[:port]`, `http://` on a loopback host",
    cors.exposed_header: "name (RFC 9110 5.6.2), not `*`",
    values.http_url: "`http(s)://` URL",
    values.redis_url: "URL of one of the forms below",
    values.route_path: "path of a URL, from `/` on",
    values.strip_prefix: 'path of a URL, or `""`',
    values.route_host: 'host name without a port, or `""`',
    values.token: "name (RFC 9110 5.6.2)",
    values.optional_token: 'name (RFC 9110 5.6.2), or `""`',
    values.method: "method in capitals",
    values.scope_token: "scope (RFC 6749 3.3)",
    values.key_prefix: "1 to 32 of `A-Z a-z 0-9 _ . : -`",
    values.token_type: 'type, or `""`',
    values.collector_url: '`http(s)://` URL, or `""`',
    values.ratio: "number, 0 to 1",
    values.token_digest: "`sha256:` and 64 hex digits",
    values.admin_token: '16 or more printable ASCII characters, or `""`',
}


def page(text: str) -> str:
    """Return docs/configuration.md with its tables made anew."""
    for section in Settings.model_fields:
        made = headers() if section == "identity_headers" else keys(section)
        text = between(text, f"keys of {section}", made)
    return between(text, "variables", variables())


def keys(section: str) -> str:
    """Return the table of a section: a row for each key."""
    return table(HEAD, [_row(section, key, field) for key, field in _model_at((section,)).model_fields.items()])


def headers() -> str:
    """Return the table of the identity headers, whose keys are the operator's own."""
    default = Settings.model_fields["identity_headers"].get_default(call_default_factory=True)
    return table(("header", "default"), [(f"`{name}`", f'`"{claim}"`') for name, claim in default.items()])


def variables() -> str:
    """Return which variable stands for which key; 0 is the first of several tables."""
    return table(("variable", "key"), [row for section in Settings.model_fields for row in _variables(section)])


def _variables(section: str) -> list[tuple[str, ...]]:
    if section == "identity_headers":
        names = Settings.model_fields[section].get_default(call_default_factory=True)
    else:
        names = _model_at((section,)).model_fields
    several = "0__" if section in LISTS else ""
    return [
        (f"`{PREFIX}{section.upper()}__{several}{name.upper().replace('-', '_')}`", f"[`{section}.{name}`](#{section})")
        for name in names
    ]


def _row(section: str, key: str, field: FieldInfo) -> tuple[str, ...]:
    default = ... if field.is_required() else field.get_default(call_default_factory=True)
    meaning = " ".join((field.description or "").split())
    if (section, key) in SECRETS:
        meaning += f" Better in a file: `{key}_file`."
    return (
        f"`{key}`",
        written(default),
        allowed(field.annotation, field.metadata, default),
        _changed_by(section, key),
        meaning,
    )


def written(default: Any) -> str:
    """Return a default as it is written in the file; ... means that there is none."""
    match default:
        case _ if default is ...:
            return "*required*"
        case None:
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case dict() | tuple() | frozenset():
            return f"`{json.dumps(default if isinstance(default, dict) else list(default))}`"
        case str() | Path():
            return f'`"{default}"`'
    return f"`{default}`"


def allowed(kind: Any, checks: Iterable[Any] = (), default: Any = None) -> str:
    """Return in words which values a type takes; `checks` are what pydantic holds it to, its metadata."""
    if get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        return allowed(kind, [*more, *checks], default)
    checks = list(checks)
    for reads in (getattr(check, "func", None) for check in checks):
        if reads in WORDS:
            return WORDS[reads] + _within(checks)
    match get_origin(kind):
        case origin if origin is UnionType or origin is Union:
            return allowed(next(each for each in get_args(kind) if each is not NoneType), checks, default)
        case origin if origin is Literal:
            return " ".join(f'`"{word}"`' for word in get_args(kind))
        case origin if origin is dict:
            return "table"
        case origin if origin in (tuple, frozenset):
            return _listed(get_args(kind)[0], default)
    return _plain(kind, checks)


def _listed(item: Any, default: Any) -> str:
    if get_origin(item) is Literal and set(get_args(item)) == set(default):
        return "any of the default"
    return f"list: {allowed(item)}"


def _plain(kind: Any, checks: list[Any]) -> str:
    if kind in (int, float) and kind is not bool:
        least = next((check.ge for check in checks if hasattr(check, "ge")), None)
        most = next((check.le for check in checks if hasattr(check, "le")), None)
        return "number" if least is None else f"{least} or more" if most is None else f"{least} to {most}"
    return {bool: "`true` `false`", Path: "path"}.get(kind, "text")


def _within(checks: list[Any]) -> str:
    bounds = [check.func for check in checks if isinstance(getattr(check, "func", None), values.Within)]
    return f", {bounds[0].low} to {bounds[0].high}" if bounds else ""


def _changed_by(section: str, key: str) -> str:
    return "reload" if takes(section, key) else "restart"
