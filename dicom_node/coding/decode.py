"""A process that decodes one frame after another, so that what a damaged frame does to a decoder it does to this process alone.

Run as a program of its own, `decode.py CHANNEL MEMORY`, both open file descriptors. What it is asked comes as JSON through the channel, coded
frames lie in the memory and decoded ones are put there; the answer is the decoded values' type, or nothing where they cannot be decoded.
It loads pydicom and its decoders, nothing of the node's, and ends when the channel is closed.
"""

import json
import mmap
import sys
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder


def main(channel: Connection, memory_fd: int) -> None:
    """Answer until nobody asks."""
    memory = mmap.mmap(memory_fd, 0)
    while True:
        try:
            asked = json.loads(channel.recv_bytes())
        except EOFError:
            return
        if asked["to"] + asked["room"] > len(memory):
            memory = mmap.mmap(memory_fd, 0)
        try:
            answer = _decode(memory, asked)
        except Exception:  # the outermost loop of this process: whoever asked says which image it was
            answer = ""
        channel.send_bytes(answer.encode())


def _decode(memory: mmap.mmap, asked: dict[str, Any]) -> str:
    """Decode a frame into its place and return its type."""
    decoder = get_decoder(asked["transfer_syntax_uid"])
    plugin = next(name for name in asked["plugins"] if name in decoder.available_plugins)
    coded = memory[asked["at"] : asked["at"] + asked["size"]]
    array = decoder.as_array(encapsulate([coded], has_bot=False), decoding_plugin=plugin, **asked["options"])[0]
    if array.nbytes > asked["room"]:
        raise ValueError("more values than there is room for")
    np.frombuffer(memory, array.dtype, array.size, asked["to"])[...] = array.ravel()
    return str(array.dtype.str)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), int(sys.argv[2]))
