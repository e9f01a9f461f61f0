"""Ports that tests give to programs: whoever asks the system for any port meanwhile does not get one of them."""

import contextlib
import socket
from pathlib import Path

from tests.orthanc import free_ports


def test_no_port_is_given_twice_nor_by_the_system() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = free_ports(40) + free_ports(40)
    assert len(set(ports)) == 80
    assert first <= 10_000 or not any(first <= port <= last for port in ports)


def test_a_port_on_which_somebody_listens_is_not_given() -> None:
    taken = free_ports(1)[0] + 1  # else the next
    with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", taken)):
        assert taken not in free_ports(3)
