"""Tests that run on an event loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


def turning(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Have a coroutine function run as a test."""

    @wraps(test)
    def run(*arguments: P.args, **more: P.kwargs) -> None:
        async def main() -> None:
            await test(*arguments, **more)

        asyncio.run(main())

    return run
