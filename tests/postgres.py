"""A PostgreSQL server of the tests' own, or the one that DICOM_NODE_TEST_POSTGRES names (postgresql://user@host:port/database)."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.orthanc import free_ports
from tests.peers import need

STANDING = "DICOM_NODE_TEST_POSTGRES"
_PATIENCE_S = 60.0


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Give the address of a database server that ends with the block; it listens on loopback, and trusts whoever comes."""
    if os.environ.get(STANDING):
        yield os.environ[STANDING]
        return
    initdb, postgres = need("initdb"), need("postgres")
    folder = Path(tempfile.mkdtemp(prefix="dicom-node-postgres-"))
    try:
        _prepare(initdb, folder)
        (port,) = free_ports(1)
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([postgres, *_settings(folder / "data", port)], stdout=log, stderr=log, **_unprivileged(folder))
        try:
            _wait_until_it_answers(server, port, folder / "log")
            yield f"postgresql://node@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(2)  # SIGINT: end at once, by rolling back whoever is connected
            server.wait(_PATIENCE_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _prepare(initdb: str, folder: Path) -> None:
    who = _unprivileged(folder)
    if "user" in who:
        os.chown(folder, who["user"], who["group"])
    command = [initdb, "-D", str(folder / "data"), "-U", "node", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
    subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE_S, **who)


def _unprivileged(folder: Path) -> dict:
    """PostgreSQL refuses to run as root: as root, the tests start it as `postgres` or `nobody`."""
    run = {"cwd": folder, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}}
    if os.geteuid() != 0:
        return run
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return run | {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _settings(data: Path, port: int) -> list[str]:
    """Fast, for the data are worth nothing; what the node asks of a connection stays as it is."""
    chosen = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off", "max_connections": 200}
    return ["-D", str(data), *(part for name, value in chosen.items() for part in ("-c", f"{name}={value}"))]


def _wait_until_it_answers(server: subprocess.Popen, port: int, log: Path) -> None:
    import psycopg  # of the extra [postgresql], which only these tests need

    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            psycopg.connect(f"postgresql://node@127.0.0.1:{port}/postgres", connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)
