"""The server: one event loop in a thread of its own, until it is told to stop."""

import logging
import socket
import ssl
import threading

import structlog
import uvicorn

from dicom_node.config import Tls, Web
from dicom_node.domain import ConfigError
from dicom_node.guard import server_context
from dicom_node.web.app import build
from dicom_node.web.context import Context

log = structlog.get_logger()

_GRACE_S = 3  # for requests under way; streams of events never end by themselves
_LOOK_EVERY_S = 1.0
_MESSAGE_BYTES = 65_536


def run(context: Context, stop: threading.Event) -> bool:
    """Answer requests until `stop`; say whether it ended because of that.

    Raises
    ------
    ConfigError: the address cannot be listened on, or a certificate is not what it should be.
    """
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # it tells of a fault by its whole text, which may quote a header
    web = context.site.config.web
    tls = _tls(web)
    listening = _listening(web.host, web.port)
    config = uvicorn.Config(
        build(context),
        log_config=None,
        access_log=False,  # a query names patients
        server_header=False,
        lifespan="off",
        ws="websockets-sansio",  # the channels of worklist events; what clients send there is not read
        ws_max_size=_MESSAGE_BYTES,
        http="h11",  # it bounds how long a request's head may be; httptools, which uvicorn takes where it is installed, does not
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    config.load()
    config.ssl = tls  # no file names: uvicorn would build a context that never changes
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="web", daemon=True)
    thread.start()  # beside the main thread it leaves signals alone
    host, port = listening.getsockname()[:2]
    log.info("web.serving", host=host, port=port, tls=tls is not None)
    if not web.on_loopback and web.oidc is None and not context.store.people.any():
        log.warning("web.nobody_known", hint="dicom-node people add NAME --role admin")
    while thread.is_alive() and not stop.wait(_LOOK_EVERY_S):
        pass
    asked = stop.is_set()
    server.should_exit = True
    thread.join()
    listening.close()
    return asked


def _tls(web: Web) -> ssl.SSLContext | None:
    """Return what connections are wrapped by; each new one by the certificate as its file is then."""
    if web.tls is None:
        return None
    contexts = server_context(Tls(certificate=web.tls.certificate, key=web.tls.key, anonymous=True), "web.tls")
    first = contexts.now()

    def newest(connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = contexts.now()

    first.sni_callback = newest
    return first


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # the protocol is said: else asyncio leaves Nagle's algorithm on
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind((host, port))
    except OSError as error:
        one.close()
        hint = "Another program, or another node, listens there: choose another web.port, or web.start = false."
        raise ConfigError(f"the web cannot listen on {host}:{port}: {error.strerror}", hint=hint) from error
    return one
