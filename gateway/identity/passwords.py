"""Password hashes: made with argon2id, checked also as bcrypt and scrypt, off the event loop.

Three forms are read, each in the modular-crypt format that its usual tools write:

    $argon2id$v=19$m=65536,t=3,p=4$<salt>$<hash>     RFC 9106
    $2b$12$<salt and hash>   ($2a$ and $2y$ alike)   bcrypt
    $scrypt$ln=16,r=8,p=1$<salt>$<hash>              RFC 7914, as passlib writes it: unpadded base64

The cost that a hash asks for is bounded, or one line of a file could hold a worker for hours.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import re
import secrets
from base64 import b64decode, b64encode
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final

import argon2
import bcrypt

from gateway.errors import IdentityUnavailable

LONGEST_PASSWORD: Final = 1024  # bytes of UTF-8
BCRYPT_BYTES: Final = 72  # bcrypt looks at no more
FORMS: Final = "$argon2id$, $2b$ (bcrypt) or $scrypt$"

_BASE64: Final = "([A-Za-z0-9+/]{%d,86})"
_ARGON2 = re.compile(r"(\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})\$)" + _BASE64 % 11 + r"\$" + _BASE64 % 22)
_SCRYPT = re.compile(r"(\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$)" + _BASE64 % 2 + r"\$" + _BASE64 % 22)
# The last character of the salt has four bits that must be 0.
_BCRYPT = re.compile(r"(\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu])[./A-Za-z0-9]{31}")
_BCRYPT_ALPHABET: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

# About four seconds each on a slow core: far more than anyone uses, far less than an outage.
_MOST_ARGON2_KIB: Final = 1 << 20
_MOST_ARGON2_WORK: Final = 1 << 22  # KiB times passes
_MOST_BCRYPT_COST: Final = 16
_MOST_SCRYPT_WORK: Final = 1 << 23  # N times r times p; 128 bytes each, so 1 GiB

_hasher = argon2.PasswordHasher()  # the parameters of RFC 9106 section 4, second recommendation


def hash_password(password: str) -> str:
    """Return an argon2id hash in its encoded form. Raises ValueError for an empty or overlong password."""
    if not 0 < len(_encode(password)) <= LONGEST_PASSWORD:
        raise ValueError(f"a password must be 1 to {LONGEST_PASSWORD} bytes of UTF-8")
    return _hasher.hash(password)


def check_hash(hashed: str) -> None:
    """Check that a hash is of a form and of a cost that `verify` takes. Raises ValueError, naming neither."""
    if found := _ARGON2.fullmatch(hashed):
        memory, passes, lanes = _numbers(found)
        good = 8 * lanes <= memory <= _MOST_ARGON2_KIB and memory * passes <= _MOST_ARGON2_WORK
    elif found := _SCRYPT.fullmatch(hashed):
        log_n, block, lanes = _numbers(found)
        good = (block * lanes << log_n) <= _MOST_SCRYPT_WORK
    elif found := _BCRYPT.fullmatch(hashed):
        if not 4 <= int(found[2]) <= _MOST_BCRYPT_COST:
            raise ValueError(f"must be a bcrypt hash of a cost from 4 to {_MOST_BCRYPT_COST}")
        return
    else:
        raise ValueError(f"must be a password hash that begins with {FORMS}")
    if not good or min(_numbers(found)) < 1 or None in (_unpadded(found[5]), _unpadded(found[6])):
        raise ValueError("must be a password hash with whole base64 and with parameters in the usual range")


def verify(hashed: str, password: str) -> bool:
    """Whether the password is the one that was hashed; False also for a hash of no known form.

    Takes as long as the hash asks for, so it belongs on a thread (see PasswordPool). The time does not
    tell right from wrong, nor anything about an overlong password.
    """
    secret = _encode(password)
    usable = 0 < len(secret) <= LONGEST_PASSWORD
    secret = secret[:LONGEST_PASSWORD]
    if found := _SCRYPT.fullmatch(hashed):
        return _verify_scrypt(found, secret) and usable
    if _BCRYPT.fullmatch(hashed):
        # Cut and NUL-ended passwords would match what begins like them; the time is spent all the same.
        usable = usable and len(secret) <= BCRYPT_BYTES and b"\0" not in secret
        return bcrypt.checkpw(secret.replace(b"\0", b" ")[:BCRYPT_BYTES], hashed.encode()) and usable
    return _ARGON2.fullmatch(hashed) is not None and _verify_argon2(hashed, secret) and usable


def decoy(hashed: str) -> str:
    """Return a hash that costs what this one costs, and that no password fits. Raises ValueError as `check_hash`."""
    check_hash(hashed)
    if found := _BCRYPT.fullmatch(hashed):
        return found[1] + "".join(secrets.choice(_BCRYPT_ALPHABET) for _ in range(30)) + "."
    found = _ARGON2.fullmatch(hashed) or _SCRYPT.fullmatch(hashed)
    assert found is not None, "check_hash lets nothing else pass"
    size = len(_unpadded(found[6]) or b"")
    return f"{found[1]}{found[5]}${b64encode(secrets.token_bytes(size)).decode().rstrip('=')}"


class PasswordPool:
    """Checks passwords on threads of its own: all three hashes let go of the interpreter's lock.

    At most `workers` at a time (each argon2id check takes 64 MiB), `waiting` more in line; whoever comes
    after them gets IdentityUnavailable rather than a place in an endless queue.
    """

    def __init__(self, workers: int = 2, waiting: int = 32) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="password")
        self._places = BoundedSemaphore(workers + waiting)

    async def verify(self, hashed: str, password: str) -> bool:
        """As `verify`, without holding up the event loop. Raises IdentityUnavailable when overloaded."""
        if not self._places.acquire(blocking=False):
            raise IdentityUnavailable("too many passwords are being checked", retry_after=1)
        try:
            work = self._threads.submit(verify, hashed, password)
        except RuntimeError as error:
            self._places.release()
            raise IdentityUnavailable("the password pool is closed") from error
        work.add_done_callback(self._leave)  # a caller that is gone still holds its place until then
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """Take no more work. What is under way is finished."""
        self._threads.shutdown(wait=False)

    def _leave(self, _: Future[bool]) -> None:
        self._places.release()


def _verify_argon2(hashed: str, secret: bytes) -> bool:
    try:
        return argon2.low_level.verify_secret(hashed.encode(), secret, argon2.Type.ID)
    except argon2.exceptions.VerificationError:
        return False


def _verify_scrypt(found: re.Match[str], secret: bytes) -> bool:
    log_n, block, lanes = _numbers(found)
    salt, expected = _unpadded(found[5]), _unpadded(found[6])
    if salt is None or expected is None:
        return False
    memory = 128 * block * ((1 << log_n) + lanes + 2) + (1 << 20)
    try:
        made = hashlib.scrypt(secret, salt=salt, n=1 << log_n, r=block, p=lanes, maxmem=memory, dklen=len(expected))
    except (ValueError, OverflowError):
        return False
    return hmac.compare_digest(made, expected)


def _unpadded(text: str) -> bytes | None:
    try:
        return b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return None


def _numbers(found: re.Match[str]) -> tuple[int, int, int]:
    return int(found[2]), int(found[3]), int(found[4])


def _encode(password: str) -> bytes:
    """Lone surrogates, which are no text, become what no password holds."""
    return password.encode("utf-8", "surrogatepass")
