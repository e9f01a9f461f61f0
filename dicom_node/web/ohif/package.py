"""The viewer's package, as its makers publish it with npm: fetched by its version, used only if its hash is right, laid out to be served.

Not a part of this program: a site that wants it fetches it. What is served is what was published, but for the path that it is served below,
for parts that ask servers elsewhere, and for scripts within its page, which a strict content security policy forbids.
"""

import base64
import gzip
import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from dicom_node.domain import Rejected, Transient

NAME, VERSION = "@ohif/app", "3.13.2"
INTEGRITY = "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
PREFIX = "/ohif/"

_FETCH_TIMEOUT_S = 900
_MOST_FILES, _MOST_BYTES = 5000, 2**29
_LEFT_OUT = frozenset({"app-config.js", "google.js", "silent-refresh.html", "init-service-worker.js", "sw.js", "oidc-client.min.js"})
_ROOT = PurePosixPath("package/dist")
_PUBLIC_PATH = '__webpack_require__.p = "/";'
_INLINE = re.compile(r"<script(?![^>]*\bsrc=)[^>]*>.*?</script>", re.DOTALL)
_SERVICE_WORKER = re.compile(r'<script[^>]*src="/init-service-worker\.js"[^>]*></script>')
_GZIPPED = frozenset({".js", ".css", ".svg", ".wasm", ".json"})
_GZIPPED_BYTES = 4096  # smaller files are sent as they are

Say = Callable[[str], None]


def installed(folder: Path) -> Path | None:
    """Return where the viewer is, None where it was not fetched.

    folder: that `fetch` was given.
    """
    place = folder / VERSION
    return place if (place / "index.html").is_file() else None


def fetch(folder: Path, *, package: Path | None = None, say: Say = lambda _: None) -> Path:
    """Return where the viewer is, below a folder; what is there already is not fetched again.

    package: the published file, brought by hand; none: npm fetches it, from where it is configured to.

    Raises
    ------
    Transient: it could not be downloaded.
    Rejected: it does not have the hash that it was pinned to, or holds something else than is known of it; nothing is kept.
    """
    place = installed(folder)
    if place is not None:
        return place
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetching-") as temporary:
        if package is None:
            say(f"downloading {NAME}@{VERSION}")
            package = _downloaded(Path(temporary))
        _same_hash(package)
        say("unpacking")
        part = Path(temporary) / "unpacked"
        _unpack(package, part)
        _lay_out(part)
        return part.rename(folder / VERSION)


def _downloaded(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        hint = f"Install it, or bring the published file of {NAME}@{VERSION} from elsewhere and give it with --ohif-package."
        raise Transient("npm is not installed on this machine", hint=hint)
    command = [npm, "pack", f"{NAME}@{VERSION}", "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, cwd=folder)
    except subprocess.TimeoutExpired as error:
        raise Transient(f"{NAME} was not downloaded within {_FETCH_TIMEOUT_S} s", hint="Try again, or look at the network.") from error
    found = [*folder.glob("*.tgz")]
    if done.returncode or len(found) != 1:
        last = (done.stderr.strip().splitlines() or ["npm said nothing"])[-1]
        raise Transient(f"{NAME}@{VERSION} could not be downloaded: {last}", hint="This machine must reach a registry by npm.")
    return found[0]


def _same_hash(package: Path) -> None:
    with package.open("rb") as file:
        found = f"sha512-{base64.b64encode(hashlib.file_digest(file, 'sha512').digest()).decode()}"
    if found != INTEGRITY:
        hint = "Do not use it before somebody has found out why it changed."
        raise Rejected(f"{NAME}@{VERSION} does not have the SHA-512 that it is pinned to; it is not used", hint=hint)


def _unpack(package: Path, into: Path) -> None:
    """Write the files to be served; a name never leads out of the folder.

    Raises
    ------
    Rejected: it holds what a package of this kind does not, or more than it should.
    """
    size = 0
    with tarfile.open(package, "r:gz") as archive:
        for count, (member, name) in enumerate(_members(archive)):
            size += member.size
            if count >= _MOST_FILES or size > _MOST_BYTES:
                raise Rejected(f"{NAME}@{VERSION} holds more than it should; it is not used")
            data = archive.extractfile(member)
            if data is None:
                raise Rejected(f"{NAME}@{VERSION} holds a file without content; it is not used")
            place = into / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                shutil.copyfileobj(data, file)


def _members(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str]]:
    for member in archive:
        path = PurePosixPath(member.name)
        if not member.isfile() and not member.isdir():
            raise Rejected(f"{NAME}@{VERSION} holds a link or a device; it is not used")
        if path.is_absolute() or ".." in path.parts or "\\" in member.name:
            raise Rejected(f"{NAME}@{VERSION} holds a name that leads out of it; it is not used")
        if member.isfile() and path == PurePosixPath("package/LICENSE"):
            yield member, "LICENSE"
        elif member.isfile() and path.is_relative_to(_ROOT) and path.suffix != ".map" and path.name not in _LEFT_OUT:
            yield member, str(path.relative_to(_ROOT))


def _lay_out(folder: Path) -> None:
    """Have the files say that they are served below `PREFIX`, and compress what is large once.

    Raises
    ------
    Rejected: they are not written as they were when this was.
    """
    index = folder / "index.html"
    text = _SERVICE_WORKER.sub("", _INLINE.sub("", index.read_text()))
    text = re.sub(r'\b(href|src|content)="/', rf'\1="{PREFIX}', text)
    changed = 0
    for path in sorted(folder.rglob("*.js")):
        script = path.read_text()
        if _PUBLIC_PATH in script:
            changed += path.name.startswith("app.bundle.")
            path.write_text(script.replace(_PUBLIC_PATH, _PUBLIC_PATH.replace('"/"', f'"{PREFIX}"')))
    for path in folder.rglob("*.css"):
        path.write_text(re.sub(r"url\(/(?!/)", f"url({PREFIX}", path.read_text()))
    if changed != 1 or f'src="{PREFIX}app-config.js"' not in text:
        raise Rejected(f"{NAME}@{VERSION} is not laid out as was expected; it is not used")
    index.write_text(text)
    for path in [*folder.rglob("*")]:
        if path.suffix in _GZIPPED and path.stat().st_size >= _GZIPPED_BYTES:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 3, mtime=0))
