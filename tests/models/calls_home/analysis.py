"""It tries to reach an address, once as Python code would and once as compiled code would; it measures the error number of the latter."""

import ctypes
import socket

from dicom_node import Findings


def load(folder, device):
    libc = ctypes.CDLL(None, use_errno=True)

    def analyse(ct):
        try:
            socket.create_connection(("127.0.0.1", 9))
        except PermissionError as error:
            said = str(error)
        else:
            said = "connected"
        denied = libc.socket(int(socket.AF_INET), int(socket.SOCK_STREAM), 0) < 0
        return Findings(segments=ct.with_array(ct.array > 0), measurements={"volume": ctypes.get_errno() if denied else 0}, notes=(said,))

    return analyse
