"""Those who are told, as small programs: a web server that is posted to, a mail server; and a process that tells and may be killed."""

import contextlib
import json
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Posted:
    """What a web server was posted. answers: the statuses of the next answers, then 200; None: it does not answer."""

    url: str = ""
    answers: list[int | None] = field(default_factory=list)
    posts: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    going_on: threading.Event = field(default_factory=threading.Event)
    ending: threading.Event = field(default_factory=threading.Event)

    @property
    def said(self) -> list[dict[str, Any]]:
        """What was posted, as objects."""
        return [json.loads(body) for _, body in self.posts]


@contextlib.contextmanager
def web_server() -> Iterator[Posted]:
    """Give a server that keeps what it is posted."""
    kept = Posted()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = kept.answers.pop(0) if kept.answers else 200
            kept.going_on.set()
            if answer is None:
                kept.ending.wait(60)
                return
            kept.posts.append((dict(self.headers), body))
            self.send_response(answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        kept.url = f"http://127.0.0.1:{server.server_port}/hook"
        yield kept
        kept.ending.set()
        server.shutdown()
        thread.join()


@dataclass
class Mailed:
    """What a mail server took. refuses: so many mails are answered 451 first."""

    port: int = 0
    mails: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # commands, with TLS or without
    refuses: int = 0


@contextlib.contextmanager
def mail_server(context: ssl.SSLContext | None = None) -> Iterator[Mailed]:
    """Give a server that takes mail (RFC 5321), over STARTTLS (RFC 3207) where it has a certificate."""
    kept = Mailed()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._secure = False
            self._say("220 localhost")
            while line := self.rfile.readline().decode().strip():
                verb = line.split()[0].upper()
                kept.seen.append(f"{'tls ' if self._secure else ''}{verb}")
                if verb == "QUIT":
                    self._say("221 bye")
                    return
                self._answer(verb)

        def _answer(self, verb: str) -> None:
            if verb == "EHLO":
                self._say("250-localhost", *([] if self._secure or context is None else ["250-STARTTLS"]), "250 AUTH PLAIN")
            elif verb == "STARTTLS" and context is not None:
                self._say("220 go on")
                self.connection = context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile, self._secure = self.connection.makefile("rb"), self.connection.makefile("wb", 0), True
            elif verb == "DATA":
                self._say("354 go on")
                lines = list(iter(lambda: self.rfile.readline().decode(), ".\r\n"))
                if kept.refuses:
                    kept.refuses -= 1
                    self._say("451 later")
                else:
                    kept.mails.append("".join(lines))
                    self._say("250 taken")
            elif verb == "AUTH":
                self._say("235 welcome")
            else:
                self._say("250 ok")

        def _say(self, *lines: str) -> None:
            self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        kept.port = server.server_address[1]
        yield kept
        server.shutdown()
        thread.join()


def main(config: str) -> None:
    """Tell until the process is killed."""
    from dicom_node.config import load_site
    from dicom_node.notify import Tellers
    from dicom_node.store import Store

    site = load_site(Path(config))
    Tellers(site.config, Store.of(site.config.node)).start()
    print("tells", flush=True)
    time.sleep(120)


if __name__ == "__main__":
    main(*sys.argv[1:])
