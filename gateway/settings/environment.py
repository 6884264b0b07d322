"""TOKENGATE_SECTION__KEY variables, laid over the file.

`__` goes one level down: TOKENGATE_REDIS__URL is `redis.url`, TOKENGATE_ROUTES__0__UPSTREAM is `upstream`
of the first [[routes]]. A whole table or list may be given as JSON. A variable that names no key is an
error like a key of the file that does not exist, save what Kubernetes sets by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from gateway.settings.files import SECRETS

PREFIX = "TOKENGATE_"

_NOT_KEYS = ("TOKENGATE_CONFIG", "TOKENGATE_INTERNAL_")  # --config, and what server.py tells its workers
# A Service named `tokengate` puts these into every pod of its namespace ("service links").
_SERVICE_LINK = re.compile(r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")

Tree = dict[str, Any]
Key = tuple[str, ...]


class NoPlace(ValueError):
    """A variable that cannot be laid over what the file has. The message names it and shows no value."""


def overlay(tree: Tree, environ: Mapping[str, str]) -> dict[Key, str]:
    """Set in `tree` what the environment says; return which variable each key came from.

    Raises NoPlace.
    """
    origins: dict[Key, str] = {}
    for name in sorted(environ, key=str.upper):  # a section given whole comes before one key of it
        parts = _parts(name)
        if parts:
            origins[_set(tree, parts, environ[name], name)] = name
    return origins


def _parts(name: str) -> list[str]:
    upper = name.upper()
    if not upper.startswith(PREFIX) or upper.startswith(_NOT_KEYS):
        return []
    rest = upper.removeprefix(PREFIX)
    if "__" not in rest and _SERVICE_LINK.fullmatch(rest):
        return []
    return rest.lower().split("__")


def _set(tree: Tree, parts: list[str], value: str, name: str) -> Key:
    """Set one value; return its key as the file would spell it."""
    here: Any = tree
    key: list[str] = []
    for part in parts[:-1]:
        step, here = _down(here, part, name, in_headers=key == ["identity_headers"])
        key.append(str(step))
    last = _spelling(here, parts[-1], in_headers=key == ["identity_headers"])
    if not isinstance(here, dict):
        raise NoPlace(f"{name}: names a place that the configuration does not have")
    here[last] = _decoded(value, name) if not key else value  # at the top there are tables and lists alone
    _displace(here, (*key, last))
    return (*key, last)


def _down(here: Any, part: str, name: str, *, in_headers: bool) -> tuple[str | int, Any]:
    """Return the next step and what is there, made where it is missing."""
    if isinstance(here, list):
        if not (part.isascii() and part.isdigit() and int(part[:6]) <= len(here)):
            raise NoPlace(f"{name}: {part!r} is not the place of a table, 0 to {len(here)}")
        if int(part) == len(here):
            here.append({})
        return int(part), here[int(part)]
    if not isinstance(here, dict):
        raise NoPlace(f"{name}: names a place that the configuration does not have")
    step = _spelling(here, part, in_headers=in_headers)
    return step, here.setdefault(step, [] if step in ("routes", "issuers") else {})


def _decoded(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise NoPlace(f"{name}: is not JSON, as a whole table or list must be; {name}__KEY sets one key") from None


def _spelling(here: Any, part: str, *, in_headers: bool) -> str:
    """Return the key of `here` that a variable's part means: variables have neither case nor hyphens."""
    for key in here if isinstance(here, dict) else ():
        if isinstance(key, str) and key.lower().replace("-", "_") == part:
            return key
    return part.replace("_", "-") if in_headers else part


def _displace(section: Tree, key: Key) -> None:
    """A secret that the environment gives takes the place of the file's in either form."""
    for secret in SECRETS:
        if key == secret:
            section.pop(f"{secret[-1]}_file", None)
        elif key == (*secret[:-1], f"{secret[-1]}_file"):
            section.pop(secret[-1], None)
