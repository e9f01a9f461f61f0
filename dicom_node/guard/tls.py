"""TLS by BCP 195 (PS3.15 B.12 and B.13): contexts that are built from the site's files, and built anew when a file has changed.

TLS 1.2 at least, 1.3 preferred; ECDHE, and a cipher that authenticates what it encrypts. Connections that stand keep what they were made with.
"""

import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from dicom_node.config import RemoteTls, Tls
from dicom_node.domain import ConfigError

_SUITES = {  # of TLS 1.2; those of TLS 1.3 are all as strong
    "bcp195": "ECDHE+AESGCM:ECDHE+CHACHA20",
    "modified": "ECDHE+AES256GCM:ECDHE+CHACHA20:ECDHE+AES128GCM:@SECLEVEL=2",  # keys and signatures of 112 bits at least: RSA of 2048
}

_log = structlog.get_logger()
_Built = TypeVar("_Built")


class Reloading(Generic[_Built]):
    """Something that is built from files, and again when one of them has changed; what cannot be built anew stays as it was.

    build: raises ConfigError where a file is not what it should be.

    Raises
    ------
    ConfigError: it cannot be built now.
    """

    def __init__(self, build: Callable[[], _Built], files: Sequence[Path]) -> None:
        self._build, self._files = build, tuple(files)
        self._lock = threading.Lock()
        self._seen = self._look()
        self._built = build()

    def now(self) -> _Built:
        """Return it as the files are now; as they were, with a line in the log, where they have become useless."""
        with self._lock:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                try:
                    self._built = self._build()
                except ConfigError as error:
                    _log.error("guard.not_reloaded", reason=str(error), hint=error.hint)
                else:
                    _log.info("guard.reloaded", files=[path.name for path in self._files])
            return self._built

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_state(path) for path in self._files)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        said = path.stat()
    except OSError:
        return None
    return said.st_mtime_ns, said.st_size, said.st_ino


def server_context(tls: Tls, key: str = "node.tls") -> Reloading[ssl.SSLContext]:
    """Return what connections of those who call are wrapped by. key: where the site says so, for what is said of a file that is wrong.

    Raises
    ------
    ConfigError: a file cannot be read, or is not what it should be.
    """
    files = [tls.certificate, tls.key, *([tls.clients] if tls.clients else [])]
    return Reloading(lambda: _server_context(tls, key), files)


def client_context(ours: Tls | None, theirs: RemoteTls) -> Reloading[ssl.SSLContext]:
    """Return what connections to a remote are wrapped by.

    Raises
    ------
    ConfigError: as `server_context`.
    """
    files = [theirs.authorities, *([ours.certificate, ours.key] if ours else [])]
    return Reloading(lambda: _client_context(ours, theirs), files)


def _server_context(tls: Tls, key: str) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_SERVER, tls.profile)
    _show(context, tls, key)
    if tls.clients is not None:
        _trust(context, tls.clients, f"{key}.clients")
        context.verify_mode = ssl.CERT_OPTIONAL if tls.anonymous else ssl.CERT_REQUIRED
    return context


def _client_context(ours: Tls | None, theirs: RemoteTls) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_CLIENT, ours.profile if ours else "bcp195")
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the peer's own certificate is an authority for itself
    _trust(context, theirs.authorities, "tls.authorities")
    if ours is not None:
        _show(context, ours)
    return context


def _context(protocol: int, profile: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES[profile])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def _show(context: ssl.SSLContext, tls: Tls, key: str = "node.tls") -> None:
    for part, path in (("certificate", tls.certificate), ("key", tls.key)):
        _readable(path, f"{key}.{part}")

    def no_password() -> str:
        raise ConfigError(f"{key}.key is encrypted", hint="Name a key without password, in a file that only this user may read.")

    try:
        context.load_cert_chain(tls.certificate, tls.key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{key}.key: {tls.key} is not the key of {tls.certificate}", hint="Name the key that belongs to it.") from error
        place = f"{key}.certificate and {key}.key: {tls.certificate} and {tls.key}"
        why = f"{place} are not a certificate and its key: {error.reason or 'not PEM'}"
        raise ConfigError(why, hint="Name PEM files, the key without password, of 2048 bits (RSA) or 256 (EC) at least.") from error


def _trust(context: ssl.SSLContext, path: Path, key: str) -> None:
    _readable(path, key)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigError(f"{key}: {path} holds no certificates: {error.reason or 'not PEM'}", hint="Name a PEM file of certificates.") from error


def _readable(path: Path, key: str) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{key}: {path} cannot be read: {error.strerror}", hint="Name a PEM file that this user may read.") from error
