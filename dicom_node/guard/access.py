"""Whether a caller is who it says it is (PS3.7 D.3.3.7, PS3.8 Table 9-21): a decision, which `receive` carries out."""

import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dicom_node.config import Remote, User
from dicom_node.domain import ConfigError
from dicom_node.guard.certificate import Certificate

_PERMANENT, _SERVICE_USER = 1, 1
_NO_REASON, _CALLING_AE_NOT_RECOGNIZED = 1, 3
_NAME, _NAME_AND_PASSCODE = 1, 2  # user identity types


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a caller has shown: its certificate, and the user identity that it presents."""

    certificate: Certificate | None = None
    identity_type: int = 0  # PS3.7 Table D.3-14; 0: it presents none
    name: bytes = b""
    passcode: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why an association is rejected, and by which result, source and reason."""

    why: str
    result: int = _PERMANENT
    source: int = _SERVICE_USER
    reason: int = _NO_REASON


def first_line(path: Path) -> bytes:
    """Read a passcode.

    Raises
    ------
    ConfigError: the file cannot be read, or its first line is empty.
    """
    try:
        passcode = (path.read_bytes().splitlines() or [b""])[0].strip()
    except OSError as error:
        raise ConfigError(f"the passcode file {path} cannot be read: {error.strerror}", hint="Name a file that this user may read.") from error
    if not passcode:
        raise ConfigError(f"the passcode file {path} is empty", hint="Its first line is the passcode.")
    return passcode


def denied(remotes: Iterable[Remote], calling_ae: str, shown: Shown, passcode_in: Callable[[Path], bytes] = first_line) -> Denial | None:
    """Say why a caller is turned away, if it is.

    Of the remotes with its title that are bound to a certificate it must be one, and of those that must present a user identity.

    Raises
    ------
    ConfigError: a passcode cannot be read.
    """
    called_so = [remote for remote in remotes if remote.ae.title == calling_ae.strip()]
    bound = [remote.certificate for remote in called_so if remote.certificate]
    if bound and (shown.certificate is None or not any(shown.certificate.is_the(wanted) for wanted in bound)):
        what = "no certificate" if shown.certificate is None else "another certificate than the one that is bound to its title"
        return Denial(why=f"it shows {what}", reason=_CALLING_AE_NOT_RECOGNIZED)
    asked = [remote.must_show for remote in called_so if remote.must_show is not None]
    if asked and not any([_is_the(user, shown, passcode_in) for user in asked]):  # a list: no caller learns by the clock which one came near
        return Denial(why="it presents no user identity" if not shown.identity_type else "it presents another user identity than it must")
    return None


def _is_the(user: User, shown: Shown, passcode_in: Callable[[Path], bytes]) -> bool:
    name = hmac.compare_digest(shown.name, user.name.encode())
    if user.passcode_file is None:
        return name and shown.identity_type in (_NAME, _NAME_AND_PASSCODE)
    passcode = hmac.compare_digest(shown.passcode, passcode_in(user.passcode_file))
    return name and passcode and shown.identity_type == _NAME_AND_PASSCODE
