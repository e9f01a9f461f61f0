"""How the node shows who it is to the peers that it calls."""

import ssl
from functools import lru_cache

from dicom_node.config import Node, Remote, RemoteTls, Tls, User
from dicom_node.guard.access import first_line
from dicom_node.guard.tls import Reloading, client_context
from dicom_node.wire import ClientTls, Credentials, Identity


def credentials(node: Node, remote: Remote) -> Credentials:
    """Return what an association with a remote is requested with; a certificate or passcode whose file has changed is read anew.

    Raises
    ------
    ConfigError: a file cannot be read, or is not what it should be. Once it was, this is not raised again: what was read last is used.
    """
    tls = None
    if remote.tls is not None:
        context = _context(node.tls, remote.tls).now()
        tls = ClientTls(context=context, server_name=remote.tls.server_name or remote.ae.host, shows=node.tls is not None)
    return Credentials(tls=tls, identity=_identity(remote.user).now() if remote.user is not None else None)


@lru_cache(maxsize=256)
def _context(ours: Tls | None, theirs: RemoteTls) -> Reloading[ssl.SSLContext]:
    return client_context(ours, theirs)


@lru_cache(maxsize=256)
def _identity(user: User) -> Reloading[Identity]:
    file = user.passcode_file
    return Reloading(lambda: Identity(name=user.name, passcode=first_line(file) if file else b""), [file] if file else [])
