"""How long the room waits before it tries a peer again; the site says it for deliveries, and it holds here too."""

from dicom_node.config import Deliver

_PROBE_AT_LEAST_EVERY_S = 300.0  # a peer that cannot be reached: what waits is not to wait for a day's back-off
_MAX_DOUBLINGS = 64


def later_s(attempt: int, wanted: Deliver) -> float:
    """Return how long to wait after the attempt of this number, from 1, that a peer refused."""
    return float(min(wanted.backoff_max_s, wanted.backoff_s * 2.0 ** min(max(attempt - 1, 0), _MAX_DOUBLINGS)))


def unreached_s(failures: int, wanted: Deliver) -> float:
    """Return how long to wait after a peer was not reached so often in a row."""
    return min(later_s(failures, wanted), _PROBE_AT_LEAST_EVERY_S)
