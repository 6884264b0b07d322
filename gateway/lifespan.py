"""The ASGI application that uvicorn runs: its lifespan builds a worker and ends it, its requests are the API's."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.app import Worker
from gateway.settings import Settings, SettingsError
from gateway.watch import Watch

_LOG = logging.getLogger("gateway.app")


class Gateway:
    """The ASGI application of one process; its lifespan makes a Worker and gives the data plane its plane."""

    def __init__(self, load: Callable[[], Settings], run_directory: Path | None = None) -> None:
        self._load = load
        self._run_directory = run_directory
        self.worker: Worker | None = None
        self.reread: Callable[[], Settings] = load
        self.watch: Watch | None = None  # files whose change is followed by a reload; None = someone else looks
        self.on_start: Callable[[Worker], Any] | None = None
        self.on_stop: Callable[[], Any] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif self.worker is not None:
            await self.worker.api(scope, receive, send)

    async def _lifespan(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            worker = self.worker = Worker(self._load(), self._run_directory)
            worker.start()
            if self.on_start is not None:
                await self.on_start(worker)
        except (OSError, ValueError, SettingsError) as error:  # what the operator can mend
            _LOG.error("the gateway cannot start", extra={"reason": str(error)})
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        except Exception as error:
            _LOG.error("the gateway cannot start", exc_info=error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        scope["state"]["plane"] = worker.plane
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self.on_stop is not None:
            await self.on_stop()
        await worker.stop()
        await send({"type": "lifespan.shutdown.complete"})
