"""The Lua scripts, as Redis knows them: each with epoch.lua and record.lua before it.

A script's replies begin with two elements: the partition's epoch after it, and 1 where the script found the
store rolled back (epochs.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError

_BEFORE = ("epoch.lua", "record.lua")

Argument = str | bytes | int


class Script:
    """A script, known to Redis by its SHA-1."""

    __slots__ = ("digest", "name", "text")

    def __init__(self, name: str) -> None:
        folder = resources.files("gateway.sessions") / "lua"
        self.name = name
        self.text = "".join((folder / file).read_text("utf-8") for file in (*_BEFORE, f"{name}.lua"))
        self.digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, client: Any, keys: Sequence[bytes], arguments: Sequence[Argument]) -> Any:
        """Run it, by its digest where Redis has it. Raises whatever the client raises."""
        rest = (len(keys), *keys, *arguments)
        try:
            return await client.evalsha(self.digest, *rest)
        except NoScriptError:
            return await client.eval(self.text, *rest)


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
