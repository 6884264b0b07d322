"""The raw backend, and no exception in the log of any gateway."""

from tests.e2e.conftest import _no_exception_is_logged, backend

__all__ = ["_no_exception_is_logged", "backend"]
