"""The limit: what Python, TCP and the disk allow to anybody who keeps each image before he answers. No DICOM, and nothing of the node.

`plain.py receive FOLDER` prints its port, and for every image writes a new file, flushes it, and answers one byte.
`plain.py send GATE PORT FILE...` waits until the gate is opened and closed by its other side, then sends each file and waits for the answer.
Both are run by path, with `python -I -S`, so that they start as quickly as Python can.
"""

import os
import socket
import sys
import threading

_LENGTH_BYTES = 8
_BUFFER_BYTES = 1 << 20


def receive(folder: str) -> None:
    """Listen until the process is ended."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        print(server.getsockname()[1], flush=True)
        for number in range(1 << 30):
            peer, _ = server.accept()
            threading.Thread(target=_keep, args=(peer, f"{folder}/{number}-"), daemon=True).start()


def _keep(peer: socket.socket, begin: str) -> None:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    number = 0
    while length := peer.recv(_LENGTH_BYTES, socket.MSG_WAITALL):
        left = int.from_bytes(length)
        file = os.open(f"{begin}{number}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        while left:
            count = peer.recv_into(buffer, min(left, _BUFFER_BYTES), socket.MSG_WAITALL)
            os.write(file, buffer[:count])
            left -= count
        os.fsync(file)
        os.close(file)
        peer.sendall(b"\0")
        number += 1
    peer.close()


def send(gate: str, port: str, files: list[str]) -> None:
    """Send files one after another."""
    with open(gate, "rb") as opened:
        opened.read()
    with socket.create_connection(("127.0.0.1", int(port))) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name in files:
            file = os.open(name, os.O_RDONLY)
            size = os.fstat(file).st_size
            peer.sendall(size.to_bytes(_LENGTH_BYTES))
            sent = 0
            while sent < size:
                sent += os.sendfile(peer.fileno(), file, sent, size - sent)
            os.close(file)
            if not peer.recv(1):
                raise SystemExit(f"{name} was not kept")


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(sys.argv[2])
    else:
        send(sys.argv[2], sys.argv[3], sys.argv[4:])
