"""Certificates for tests, made by OpenSSL's own program when they are needed, and never kept."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.peers import need

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """Its SHA-256, as OpenSSL prints it."""
        said = _openssl("x509", "-in", self.certificate, "-noout", "-fingerprint", "-sha256")
        return said.strip().partition("=")[2]


def authority(folder: Path, name: str) -> Pair:
    """Make an authority."""
    made = _pair(folder, name)
    _openssl("req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.certificate)
    return made


def signed(by: Pair, folder: Path, name: str, *, days: int = 90, names: str = "DNS:localhost,IP:127.0.0.1") -> Pair:
    """Make a certificate that an authority has signed; with -1 days it has expired."""
    made = _pair(folder, name)
    request, more = folder / f"{name}.csr", folder / f"{name}.ext"
    more.write_text(f"basicConstraints=CA:FALSE\nsubjectAltName={names}\n")
    _openssl("req", "-new", *_KEY, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
    signs = ("-CA", by.certificate, "-CAkey", by.key, "-CAcreateserial")
    _openssl("x509", "-req", "-in", request, *signs, "-days", str(days), "-extfile", more, "-out", made.certificate)
    return made


def _pair(folder: Path, name: str) -> Pair:
    folder.mkdir(parents=True, exist_ok=True)
    return Pair(certificate=folder / f"{name}.pem", key=folder / f"{name}.key")


def _openssl(*words: str | Path) -> str:
    return subprocess.run([need("openssl"), *map(str, words)], check=True, capture_output=True, text=True, timeout=60).stdout
