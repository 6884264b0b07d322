"""File + environment + secrets -> Settings, or lines that say what is wrong and where.

A line is `key: what is wrong, found what; what is allowed`. It never shows a secret, nor the value of a
key that does not exist, which may be a misspelt secret.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.settings import environment, files
from gateway.settings.environment import Key
from gateway.settings.models import IDENTITY_HEADERS, Settings

MAX_FILE_BYTES = 1 << 20
MAX_USERS_BYTES = 16 << 20
_SHOWN = 60  # characters of a value in a line

_ALLOWED = {  # pydantic's word for what is wrong -> what would be right
    "bool_parsing": "true or false is allowed",
    "bool_type": "true or false is allowed",
    "dict_type": "a table is allowed",
    "frozen_set_type": "a list is allowed",
    "int_from_float": "a whole number is allowed",
    "int_parsing": "a whole number is allowed",
    "int_parsing_size": "a smaller number is allowed",
    "int_type": "a whole number is allowed",
    "model_attributes_type": "a table is allowed",
    "model_type": "a table is allowed",
    "path_type": "a path is allowed",
    "string_type": "a string is allowed",
    "too_short": "at least one is needed",
    "tuple_type": "a list is allowed",
}


class SettingsError(Exception):
    """The configuration cannot be used. `lines` says why, a line for each key."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a TOML file, if any, overridden by TOKENGATE_* variables. Raises SettingsError.

    Relative paths, in the file too, begin at the working directory.
    """
    tree = {} if path is None else _parse(path)
    tree.setdefault("tokens", {})  # so that what it lacks is told key by key
    tree.setdefault("identity_headers", dict(IDENTITY_HEADERS))  # so that a variable replaces one of them
    try:
        origins = environment.overlay(tree, environ)
    except environment.NoPlace as error:
        raise SettingsError([_plain(str(error))]) from None
    hidden = [key for key in tree if key.startswith("_")]  # pydantic-settings would take them for its own options
    if hidden:
        raise SettingsError([f"{_name((key,), origins)}: is not a key" for key in hidden])
    unread = files.resolve(tree)
    if unread:
        raise SettingsError([f"{_name(key, origins)}: {problem}" for key, problem in unread])
    try:
        return Settings(**tree)
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise SettingsError([line for item in details for line in _lines(item, tree, origins)]) from None


def check_files(settings: Settings) -> None:
    """Raise SettingsError unless every file that the settings name is there and no secret is open to everyone.

    The files themselves are read by who needs them: keys and users here, certificates by ssl.
    """
    server, redis = settings.server, settings.redis
    private = {"server.tls_key": server.tls_key, "redis.tls_key": redis.tls_key}
    public = {"server.tls_cert": server.tls_cert, "redis.tls_cert": redis.tls_cert, "redis.tls_ca": redis.tls_ca}
    public["tracing.tls_ca"] = settings.tracing.tls_ca
    for position, route in enumerate(settings.routes):
        private[f"routes.{position}.upstream_key"] = route.upstream_key
        public[f"routes.{position}.upstream_cert"] = route.upstream_cert
        public[f"routes.{position}.upstream_ca"] = route.upstream_ca
    for position, issuer in enumerate(settings.issuers):
        public[f"issuers.{position}.jwks_ca"] = issuer.jwks_ca
    checks: list[tuple[str, Callable[[], object]]] = [
        ("tokens.signing_keys", partial(files.read_directory, settings.tokens.signing_keys)),
        *((key, partial(files.check_private, path)) for key, path in private.items() if path),
        *((key, partial(files.read_open, path, MAX_FILE_BYTES)) for key, path in public.items() if path),
    ]
    if settings.identity.provider == "users-file" and settings.identity.users_file:
        checks.append(("identity.users_file", partial(files.read_open, settings.identity.users_file, MAX_USERS_BYTES)))
    lines = [line for key, check in checks for line in _failures(key, check)]
    if lines:
        raise SettingsError(lines)


def read_keys(settings: Settings) -> list[files.KeyFileRow]:
    """Return (name, bytes, mtime) of the key files, the arguments of tokens.KeyFile. Raises SettingsError."""
    try:
        return files.read_directory(settings.tokens.signing_keys)
    except files.BadFile as error:
        raise SettingsError([f"tokens.signing_keys: {error}"]) from None


def read_users(settings: Settings) -> bytes:
    """Return the users file as it is. Raises SettingsError, also where none is configured."""
    if settings.identity.users_file is None:
        raise SettingsError(["identity.users_file: is missing"])
    try:
        return files.read_open(settings.identity.users_file, MAX_USERS_BYTES)
    except files.BadFile as error:
        raise SettingsError([f"identity.users_file: {error}"]) from None


def sample(name: str) -> Path:
    """Return the path of a file of config/, beside the package in a checkout and inside it in a wheel."""
    package = Path(__file__).parent.parent
    installed = package / "config" / name
    return installed if installed.exists() else package.parent / "config" / name


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = files.read_open(path, MAX_FILE_BYTES).decode()
        return tomllib.loads(text)
    except files.BadFile as error:
        raise SettingsError([f"configuration file: {error}"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f'configuration file: "{path}" is not UTF-8 text']) from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise SettingsError([f'configuration file: "{path}" is not TOML: {_place(error)}']) from None


def _place(error: Exception) -> str:
    """Return where the file breaks off being TOML, without what stands there."""
    found = re.search(r"\((at [^)]+)\)\s*$", str(error))
    if found:
        return f"it cannot be read {found[1]}"
    return "it is nested too deep" if isinstance(error, RecursionError) else "a number is too long"


def _failures(key: str, check: Callable[[], object]) -> Iterator[str]:
    try:
        check()
    except files.BadFile as error:
        yield f"{key}: {error}"


def _lines(item: ErrorDetails, tree: dict[str, Any], origins: Mapping[Key, str]) -> Iterator[str]:
    context, key = item.get("ctx", {}), tuple(str(part) for part in item["loc"] if part != "[key]")
    name = _name(key, origins)
    match item["type"]:
        case "rules":
            yield from context["lines"]
        case "missing":
            yield f"{name}: is missing"
        case "extra_forbidden":
            yield f"{name}: is not a key{_hint(key)}"
        case _:
            yield f"{name}: {_found(key, tree)}{_allowed(item)}"


def _allowed(item: ErrorDetails) -> str:
    context = item.get("ctx", {})
    match item["type"]:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"{context['expected']} is allowed"
        case "greater_than_equal":
            return f"{context['ge']} or more is allowed"
        case "less_than_equal":
            return f"{context['le']} or less is allowed"
    return _ALLOWED.get(item["type"]) or item["msg"]


def _name(key: Key, origins: Mapping[Key, str]) -> str:
    """Return the dotted key, with the variable that set it, what it is in, or something in it."""
    dotted = ".".join(_clean(part) for part in key)
    above = [key[:length] for length in range(len(key), 0, -1) if key[:length] in origins]
    below = [origin for origin in origins if origin[: len(key)] == key]
    return f"{dotted} ({_plain(origins[(*above, *below)[0]])})" if above or below else dotted


def _found(key: Key, tree: Any) -> str:
    """Return what stands at a key, or nothing where that could tell a secret."""
    if any(key[: len(secret)] == secret[: len(key)] for secret in files.SECRETS):
        return ""
    for part in key:
        try:
            tree = tree[int(part)] if isinstance(tree, list | tuple) else tree[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return ""
    return f"found {_show(tree)}; "


def _show(value: Any) -> str:
    match value:
        case dict():
            return "a table"
        case list():
            return "a list"
        case bool():
            return str(value).lower()
        case str():
            masked = re.sub(r"(?<=//)[^/\s]*@", "...@", value)  # user and password in a URL
            return f'"{_clean(masked)}"'
    return _clean(str(value))


def _clean(text: str) -> str:
    """Return a text that stays on its line."""
    plain = _plain(text[: _SHOWN + 1])
    return plain if len(text) <= _SHOWN else f"{plain[:_SHOWN]}..."


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _hint(key: Key) -> str:
    """Return the key that was meant: one of the same table, else the same one of another."""
    beside = list(_model_at(key[:-1]).model_fields)
    near = difflib.get_close_matches(key[-1], beside, n=1)
    if near:
        return f"; did you mean {'.'.join((*key[:-1], near[0]))}?"
    for section in Settings.model_fields:
        if key[-1] in _model_at((section,)).model_fields and key[:-1] != (section,):
            return f"; did you mean {section}.{key[-1]}?"
    return f"; {', '.join(beside)} are" if beside else ""


def _model_at(key: Key) -> type[BaseModel]:
    """Return the model of a table."""
    model: type[BaseModel] = Settings
    for part in key:
        if not part.isdigit():
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field's type is, or is a tuple of."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
