"""Passwords: what is kept of one is its argon2id hash (RFC 9106), and nobody learns by the clock whether a name exists."""

import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from dicom_node.domain import Rejected, Transient

MIN_LENGTH, MAX_LENGTH = 12, 256  # characters
_hasher = PasswordHasher()  # argon2-cffi's defaults: RFC 9106's second recommendation, 64 MiB
_turn = threading.BoundedSemaphore(2)  # each takes those 64 MiB
_queue = threading.BoundedSemaphore(10)  # those two and who waits: more would hold every thread of the web
_WAIT_S = 10.0


def hashed(password: str) -> str:
    """Return the hash of a password that somebody has chosen.

    Raises
    ------
    Rejected: it is too short or too long.
    """
    text = _plain(password)
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
        raise Rejected(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters", hint="Several words are easy to remember.")
    with _one_of_few():
        return _hasher.hash(text)


def is_password(kept: str, password: str) -> bool:
    """Say whether it is the password of a hash; "" as a hash takes as long as any, and is nobody's.

    Raises
    ------
    Transient: too many are being compared.
    """
    text = _plain(password[: MAX_LENGTH + 1])
    with _one_of_few():
        try:
            _hasher.verify(kept or _nobodys(), text)
        except (VerificationError, InvalidHashError):
            return False
    return bool(kept) and len(text) <= MAX_LENGTH


def is_outdated(kept: str) -> bool:
    """Say whether a hash was made with weaker parameters than those of now."""
    return _hasher.check_needs_rehash(kept)


@cache
def _nobodys() -> str:
    return _hasher.hash("nobody's, and compared with so that an unknown name takes as long as a known one")


@contextmanager
def _one_of_few() -> Iterator[None]:
    if not _queue.acquire(blocking=False):
        raise _too_many()
    try:
        if not _turn.acquire(timeout=_WAIT_S):
            raise _too_many()
        try:
            yield
        finally:
            _turn.release()
    finally:
        _queue.release()


def _too_many() -> Transient:
    return Transient("too many people log in at once", hint="Try again in a moment.")


def _plain(password: str) -> str:
    return unicodedata.normalize("NFC", password).encode(errors="replace").decode()
