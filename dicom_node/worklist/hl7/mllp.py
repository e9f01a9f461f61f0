"""The listener: takes messages over MLLP of those who may send, each connection in a thread of its own, and sends back what each is answered."""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable

import structlog

from dicom_node.config import Hl7
from dicom_node.domain import ConfigError, fault
from dicom_node.guard.tls import server_context
from dicom_node.wire.mllp import Frames, Unframed, framed, receive

_LOOK_EVERY_S = 1.0  # whether it is to stop
_WAITING = 16  # connections that nobody has accepted yet

Answer = Callable[[bytes], bytes | None]  # what is sent back for a message; None: the connection is closed

_log = structlog.get_logger()


class Listener:
    """Listens where the site says.

    Raises
    ------
    ConfigError: a file of its TLS cannot be used.
    """

    def __init__(self, config: Hl7, answer: Answer) -> None:
        self._config = config
        self._answer = answer
        self._networks = tuple(ipaddress.ip_network(one, strict=False) for one in config.from_addresses)
        self._tls = server_context(config.tls, "hl7.tls") if config.tls is not None else None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, socket.socket] = {}
        self._thread: threading.Thread | None = None
        self._server: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port it listens on; 0 when it does not."""
        return int(self._server.getsockname()[1]) if self._server is not None else 0

    @property
    def alive(self) -> bool:
        """Whether it accepts connections, if it was started."""
        return self._thread is None or self._thread.is_alive()

    def start(self) -> None:
        """Listen, if the site wants it.

        Raises
        ------
        ConfigError: the port cannot be listened on.
        """
        if self._config.port is None:
            return
        family = socket.AF_INET6 if ":" in self._config.host else socket.AF_INET
        try:
            self._server = socket.create_server((self._config.host, self._config.port), family=family, backlog=_WAITING)
        except OSError as error:
            where = f"hl7: {self._config.host}:{self._config.port} cannot be listened on: {error.strerror}"
            raise ConfigError(where, hint="Choose another hl7.port, or see who listens there.") from error
        self._server.settimeout(_LOOK_EVERY_S)
        self._thread = threading.Thread(target=self._accept, args=(self._server,), name="hl7", daemon=True)
        self._thread.start()
        _log.info("hl7.listening", host=self._config.host, port=self.port)

    def stop(self, patience_s: float = 10.0) -> None:
        """Take no more messages, let those under way be answered, and end."""
        self._stopping.set()
        if self._server is None or self._thread is None:
            return
        until = time.monotonic() + patience_s
        _shut(self._server, socket.SHUT_RDWR)  # where the system lets that wake who accepts; elsewhere it looks by itself
        self._thread.join(patience_s)
        self._server.close()
        with self._lock:
            still_open = dict(self._open)
        for line in still_open.values():
            _shut(line, socket.SHUT_RD)
        for thread, line in still_open.items():
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                _shut(line, socket.SHUT_RDWR)

    def _accept(self, server: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                line, address = server.accept()
            except TimeoutError:
                continue
            except OSError as error:  # it ends; or too many files are open, or the caller has gone
                if self._stopping.is_set():
                    return
                _log.warning("hl7.not_accepted", why=error.strerror or type(error).__name__)
                self._stopping.wait(_LOOK_EVERY_S)
                continue
            source = str(address[0])
            if why := self._objection(source):
                _log.warning("hl7.connection_refused", source=source, why=why)
                line.close()
                continue
            thread = threading.Thread(target=self._serve, args=(line, source), name=f"hl7 {source}", daemon=True)
            with self._lock:
                self._open[thread] = line
            thread.start()

    def _objection(self, source: str) -> str:
        address = ipaddress.ip_address(source.partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not any(address in network for network in self._networks):
            return "hl7.from_addresses does not name it"
        with self._lock:
            return f"{self._config.connections} connections are open" if len(self._open) >= self._config.connections else ""

    def _serve(self, line: socket.socket, source: str) -> None:
        """Answer what comes over one connection until it ends."""
        try:
            with line:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a sender that has vanished is noticed
                line.settimeout(self._config.timeout_s)
                if self._tls is None:
                    self._converse(line)
                else:
                    with self._tls.now().wrap_socket(line, server_side=True) as wrapped:
                        with self._lock:
                            self._open[threading.current_thread()] = wrapped
                        self._converse(wrapped)
        except Unframed as error:
            _log.warning("hl7.connection_ended", source=source, why=str(error))
        except (OSError, ssl.SSLError) as error:
            _log.info("hl7.connection_ended", source=source, why=getattr(error, "strerror", None) or type(error).__name__)
        except Exception as error:  # the outermost loop of this thread: the others go on
            _log.error("hl7.connection_failed", source=source, why=fault(error))
        finally:
            with self._lock:
                self._open.pop(threading.current_thread(), None)

    def _converse(self, line: socket.socket) -> None:
        """Answer messages in their order.

        Raises
        ------
        Unframed: what comes is no message.
        OSError: the line is broken, or the other side is too slow.
        """
        frames = Frames()
        while not self._stopping.is_set():
            message = receive(line, frames, idle_s=self._config.idle_s, timeout_s=self._config.timeout_s)
            answered = self._answer(message) if message is not None else None
            if answered is None:
                return
            line.settimeout(self._config.timeout_s)
            line.sendall(framed(answered))


def _shut(line: socket.socket, how: int) -> None:
    """Shut a line whose thread may be using it; that of TLS by the socket below it, for its own way would send the answer in the clear."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(line, how)
