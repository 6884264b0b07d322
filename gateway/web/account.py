"""The account page: sign in, my devices, sign one out, sign out everywhere.

Forms do it all; the script adds comfort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from gateway.web.agents import in_words
from gateway.web.page import page

PATH = "/auth/account"

NOTES = {  # ?note= of the address: a name, never a text
    "signed-out": "You are signed out.",
    "device-signed-out": "That device is signed out.",
    "others-signed-out": "All your other devices are signed out.",
    "everywhere": "You are signed out on all your devices.",
}
PROBLEMS = {
    "invalid_credentials": "The user name or the password is wrong.",
    "invalid_request": "Please fill in your user name and your password.",
    "too_many_attempts": "Too many attempts. Please wait {wait} and try again.",
    "store_unavailable": "The sign-in service cannot be reached at the moment. Nothing has been changed; "
    "please try again in a moment.",
    "identity_unavailable": "Your user name and password cannot be checked at the moment. "
    "Please try again in a moment.",
    "session_ended": "You have been signed out on this device. Please sign in again.",
    "not_found": "That device was signed out already.",
    "cookies_blocked": "You are not signed in, because your browser blocks cookies for this site. "
    "Please allow them and sign in again.",
    "csrf_rejected": "This request did not come from this page. Please try again here.",
}
UNKNOWN_PROBLEM = "That did not work. Please try again."


@dataclass(frozen=True, slots=True)
class Device:
    """A session as the page shows it. Times are Unix seconds; `expires_at` 0 = never."""

    id: str
    name: str
    user_agent: str
    ip: str
    created_at: int
    last_used_at: int
    expires_at: int
    current: bool


def sign_in_page(problem: str = "", note: str = "", username: str = "", wait: float = 0.0) -> bytes:
    """Return the form to sign in, with what went wrong (a key of PROBLEMS) or what has been done (one of NOTES)."""
    described = ' aria-describedby="problem"' if problem else ""
    focus = ("", " autofocus") if username else (" autofocus", "")
    content = (
        "<h1>Sign in</h1>\n" + _message(problem, note, wait) + f'<form method="post" action="{PATH}" class="card">\n'
        '<input type="hidden" name="do" value="sign-in">\n'
        '<label for="username">User name</label>\n'
        f'<input id="username" name="username" autocomplete="username" autocapitalize="none" spellcheck="false" '
        f'required maxlength="255" value="{escape(username)}"{described}{focus[0]}>\n'
        '<label for="password">Password</label>\n'
        f'<input id="password" name="password" type="password" autocomplete="current-password" required'
        f"{described}{focus[1]}>\n"
        '<button type="submit" class="primary">Sign in</button>\n</form>\n'
    )
    return page("Sign in", content)


def devices_page(subject: str, devices: Sequence[Device], problem: str = "", note: str = "") -> bytes:
    """Return the user's devices, this one first."""
    ordered = sorted(devices, key=lambda device: (not device.current, -device.last_used_at))
    others = sum(not device.current for device in devices)
    content = (
        "<h1>Your devices</h1>\n"
        f'<p class="who">Signed in as <strong>{escape(subject)}</strong></p>\n'
        + _message(problem, note, 0.0)
        + '<ul class="devices">\n'
        + "".join(_device(device) for device in ordered)
        + "</ul>\n"
        + _everywhere(others)
    )
    return page("Your devices", content)


def unavailable_page(problem: str) -> bytes:
    """Return what is shown while nobody can tell who is signed in. The cookie stays as it is."""
    content = "<h1>One moment, please</h1>\n" + _message(problem, "", 0.0) + f'<p><a href="{PATH}">Try again</a></p>\n'
    return page("One moment, please", content)


def come_again_page() -> bytes:
    """Return a page that asks for itself again: a browser keeps the cookie back where another site's link led here."""
    head = f'<meta http-equiv="refresh" content="0; url={PATH}">\n'
    return page("Your account", f'<p><a href="{PATH}">Your account</a></p>\n', head=head)


def _message(problem: str, note: str, wait: float) -> str:
    if problem:
        text = PROBLEMS.get(problem, UNKNOWN_PROBLEM).format(wait=_wait(wait))
        return f'<p id="problem" class="problem" role="alert">{escape(text)}</p>\n'
    if note in NOTES:
        return f'<p class="note" role="status">{escape(NOTES[note])}</p>\n'
    return ""


def _wait(seconds: float) -> str:
    whole = max(1, round(seconds))
    return f"{whole} seconds" if whole < 90 else f"{(whole + 59) // 60} minutes"


def _device(device: Device) -> str:
    words = in_words(device.user_agent)
    name = device.name or words
    more = [words] if device.name else []
    more += [device.ip] if device.ip else []
    here = '<span class="here">This device</span>' if device.current else ""
    label = escape(f"Sign out {name}" + (" (this device)" if device.current else ""))
    return (
        f'<li class="card"{" aria-current=true" if device.current else ""}>\n'
        f"<h2>{escape(name)} {here}</h2>\n"
        f"<p>{escape(', '.join(more))}</p>\n"
        # A line each: a time that the script puts in shorter words must not make lines fewer under a reader's eyes.
        f"<p>Last used {_time(device.last_used_at)}</p>\n<p>Signed in {_time(device.created_at)}</p>\n"
        f'<form method="post" action="{PATH}">\n'
        f'<input type="hidden" name="do" value="end"><input type="hidden" name="id" value="{escape(device.id)}">\n'
        f'<button type="submit" aria-label="{label}">Sign out</button>\n</form>\n</li>\n'
    )


def _everywhere(others: int) -> str:
    forms = []
    if others:
        forms.append(_button("end-others", "Sign out all other devices"))
    forms.append(_button("end-all", "Sign out everywhere, here too"))
    return '<div class="everywhere">\n' + "".join(forms) + "</div>\n"


def _button(do: str, text: str) -> str:
    return (
        f'<form method="post" action="{PATH}" data-confirm="{escape(text)}?">'
        f'<input type="hidden" name="do" value="{do}"><button type="submit">{escape(text)}</button></form>\n'
    )


def _time(at: int) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f'<time datetime="{moment:%Y-%m-%dT%H:%M:%SZ}">{moment:%d %b %Y, %H:%M} UTC</time>'
