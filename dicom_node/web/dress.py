"""What pages are dressed with: our own style sheets, scripts and icon, few and small, read once."""

from hashlib import sha256
from pathlib import Path

KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: path.read_bytes() for path in sorted((Path(__file__).parent / "static").iterdir()) if path.suffix in KINDS}


def address(name: str) -> str:
    """Return where a file is, an address of its content: it may be kept for as long as anybody likes."""
    return f"/static/{name}?v={sha256(FILES[name]).hexdigest()[:12]}"
