"""Files that hold secrets: mounted ones take the place of a key, key files and users are read as they are.

A secret that everyone on the machine may read is none, and a file that everyone may write says what
anyone likes: both stop the start.
"""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

MAX_SECRET_BYTES = 64 * 1024
MAX_KEYS = 256
_FOR_OTHERS = 0o007
_WRITABLE_BY_OTHERS = 0o002
_KEY_SUFFIXES = (".pem", ".jwk")

# The keys that hold secrets. Each has a twin that ends in `_file` and names a file with its value.
SECRETS = (
    ("redis", "url"),
    ("redis", "password"),
    ("redis", "sentinel_password"),
    ("management", "admin_token"),
    ("management", "admin_tokens"),
    ("introspection", "clients"),
    ("tracing", "headers"),
)
_TABLES = ("admin_tokens", "clients", "headers")  # the files of these are TOML

KeyFileRow = tuple[str, bytes, float]


class BadFile(ValueError):
    """A file that cannot be used. The message names it and says why; it never repeats what is in it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f'"{path}" {reason}')


def read_secret(path: Path) -> str:
    """Return the text of a file that only its owner and group may use, without its last newline."""
    data, mode, _ = _read(path, MAX_SECRET_BYTES)
    _refuse(path, mode, _FOR_OTHERS)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BadFile(path, "is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise BadFile(path, "is empty")
    return text


def read_open(path: Path, limit: int) -> bytes:
    """Return the bytes of a file that others may read but not write."""
    data, mode, _ = _read(path, limit)
    _refuse(path, mode, _WRITABLE_BY_OTHERS)
    return data


def check_private(path: Path) -> None:
    """Raise BadFile unless this is a readable file that only its owner and group may use."""
    _, mode, _ = _read(path, MAX_SECRET_BYTES)
    _refuse(path, mode, _FOR_OTHERS)


def read_directory(path: Path) -> list[KeyFileRow]:
    """Return (name, bytes, mtime in Unix seconds) of the key files in a directory, by name.

    Names that begin with a dot are not looked at: a mounted Kubernetes Secret keeps its versions there.
    """
    try:
        mode = path.stat().st_mode
        names = sorted(entry.name for entry in os.scandir(path))
    except OSError as error:
        raise BadFile(path, _reason(error)) from None
    if mode & _WRITABLE_BY_OTHERS and not mode & stat.S_ISVTX:  # the mount point of a Secret is sticky
        raise BadFile(path, "may be written by everyone; chmod o-w")
    names = [name for name in names if name.endswith(_KEY_SUFFIXES) and not name.startswith(".")]
    if len(names) > MAX_KEYS:
        raise BadFile(path, f"holds more than {MAX_KEYS} key files")
    return [_read_key(path / name) for name in names]


def resolve(tree: dict[str, Any]) -> list[tuple[tuple[str, str], str]]:
    """Put the contents of every `*_file` in the place of its key; return (key, what is wrong) for those that fail."""
    problems = []
    for section, key in SECRETS:
        table = tree.get(section)
        path = table.get(f"{key}_file") if isinstance(table, dict) else None
        if not isinstance(table, dict) or not isinstance(path, str):
            continue
        if key in table:
            problems.append(((section, f"{key}_file"), f"found beside {section}.{key}; one of the two is allowed"))
            continue
        try:
            text = read_secret(Path(path))
            table[key] = _table(Path(path), text) if key in _TABLES else text
        except BadFile as error:
            problems.append(((section, f"{key}_file"), str(error)))
    return problems


def _table(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):  # TOMLDecodeError, a number of thousands of digits, a thousand brackets
        raise BadFile(path, "is not TOML") from None


def _read_key(path: Path) -> KeyFileRow:
    data, mode, modified = _read(path, MAX_SECRET_BYTES)
    public = path.suffix == ".pem" and b"PRIVATE KEY" not in data
    _refuse(path, mode, _WRITABLE_BY_OTHERS if public else _FOR_OTHERS)
    return path.name, data, modified


def _read(path: Path, limit: int) -> tuple[bytes, int, float]:
    """Return (bytes, mode, mtime) of a regular file, all of the one file that was opened."""
    try:
        # O_NONBLOCK: to open a FIFO must not wait for a writer
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise BadFile(path, _reason(error)) from None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise BadFile(path, "is not a file")
        if status.st_size > limit:
            raise BadFile(path, f"is larger than {limit} bytes")
        return file.read(limit), status.st_mode, status.st_mtime


def _refuse(path: Path, mode: int, mask: int) -> None:
    if mode & mask & _WRITABLE_BY_OTHERS:
        raise BadFile(path, f"may be written by everyone (mode {stat.S_IMODE(mode):04o}); chmod o-w")
    if mode & mask:
        hint = "chmod o= (in Kubernetes defaultMode: 0440)"
        raise BadFile(path, f"may be used by everyone (mode {stat.S_IMODE(mode):04o}); {hint}")


def _reason(error: Exception) -> str:
    return f"cannot be read: {getattr(error, 'strerror', None) or 'not a path'}"
