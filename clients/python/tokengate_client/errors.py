"""What can go wrong. `str(error)` is a text that a person understands; `code` is for programs."""

from __future__ import annotations

import math


class TokengateError(Exception):
    """What all errors of this package are."""

    code = "error"
    text = "Something went wrong."

    def __init__(self, text: str = "") -> None:
        super().__init__(text or self.text)


class InvalidCredentials(TokengateError):
    code = "invalid_credentials"
    text = "The user name or the password is wrong."


class TooManyAttempts(TokengateError):
    """`retry_after` is in seconds."""

    code = "too_many_attempts"

    def __init__(self, retry_after: float) -> None:
        self.retry_after = retry_after
        seconds = max(1, math.ceil(retry_after))
        when = f"{seconds} seconds" if seconds < 90 else f"{math.ceil(seconds / 60)} minutes"
        super().__init__(f"Too many attempts. Please try again in {when}.")


class Unavailable(TokengateError):
    """Nobody could be asked; a session that there was goes on."""

    code = "unavailable"
    text = "The service cannot be reached at the moment. You are still signed in; please try again."
    away = "The service cannot be reached at the moment. Please try again."
    out_here = "You are signed out here, but the service could not be told, because it cannot be reached at the moment."


class NotSignedIn(TokengateError):
    code = "not_signed_in"
    text = "Please sign in."


class SignedOut(TokengateError):
    """`reason` is "logout", "revoked" or "session_ended"."""

    code = "signed_out"
    text = "You have been signed out. Please sign in again."

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__()


class StorageFailed(TokengateError):
    """The store did not take the refresh token, or did not give it; its own error is the cause."""

    code = "storage_failed"
    text = "Your sign-in cannot be kept here. Make sure that this program can store data, and sign in again."


class BodyNotReplayable(TokengateError):
    """The request was refused with an expired token and has had no effect; the session has a new token by now."""

    code = "body_not_replayable"
    text = (
        "The upload was not accepted because the sign-in had to be renewed meanwhile. It has been; "
        "please start the upload again."
    )


class Refused(TokengateError):
    """The gateway refused; `code` is its error code and `status` the HTTP status."""

    text = "The request was refused."

    def __init__(self, code: str, status: int) -> None:
        self.code = code
        self.status = status
        super().__init__()
