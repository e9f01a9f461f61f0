"""Points between two promises, and a fuse that kills the process by SIGKILL when it passes one of them for the n-th time.

The program itself knows nothing of this: the fuse is laid from outside, around the functions that make and keep the promises.
"""

import functools
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dicom_node.analyse import Pool
from dicom_node.receive.door import Arrival
from dicom_node.store import Archive, Database, Deliveries, Draft, Intake, Jobs, Studies, Triage, intake, studies, triage

_WITHIN_S = 0.004


@dataclass(frozen=True)
class Point:
    """A place in the program: before or after a function, or so many seconds into it."""

    owner: Any
    function: str
    when: str  # "before", "after", or "within"
    something: bool = False  # whether only a call that returns something counts as a passing


POINTS: dict[str, dict[str, Point]] = {
    "serve": {
        "in the middle of a data set": Point(Draft, "took", "after"),
        "after the data set, before its receipt": Point(Draft, "seal", "before"),
        "after bytes, before row": Point(Draft, "seal", "after"),
        "in the group's transaction": Point(Intake, "_commit", "within"),
        "after the transaction": Point(intake, "record_group", "after"),
        "after row, before Success": Point(Arrival, "close", "after"),
        "after row, before it is durable": Point(Database, "harden", "before"),
        "after it is durable, before the file is in its place": Point(Archive, "settle", "before"),
        "after the file is in its place": Point(Archive, "settle", "after"),
        "before the log begins anew": Point(Database, "checkpoint", "before"),
        "within the sweep of a start": Point(Intake, "_has_row", "after"),
        "in completeness, before its jobs": Point(studies, "_add", "before"),
        "in completeness, before its commit": Point(studies, "_add", "after"),
        "after complete and jobs": Point(Studies, "complete", "after"),
        "after a delivery was claimed": Point(Deliveries, "claim", "after", something=True),
        "during delivery": Point(Deliveries, "claim", "within", something=True),
        "after delivery, before its row": Point(Deliveries, "sent", "before"),
        "after the delivery's row": Point(Deliveries, "sent", "after"),
        "before what was found raises its study": Point(Triage, "act", "before"),
        "in the commit that raises it": Point(triage, "_raise", "after"),
        "after it was raised": Point(Triage, "act", "after", something=True),
    },
    "work": {
        "after the claim": Point(Jobs, "claim", "after", something=True),
        "during analysis": Point(Pool, "run", "within"),
        "after analysis": Point(Pool, "run", "after"),
        "after a result, before its row": Point(Archive, "write_result", "after"),
        "after the picture, before its row": Point(Archive, "write_picture", "after"),
        "before results and deliveries": Point(Jobs, "complete", "before"),
        "after results and deliveries": Point(Jobs, "complete", "after"),
    },
}


def lay(verb: str, name: str, passes: int, tell: Callable[[str], None]) -> None:
    """Lay a fuse in this process: it dies at the n-th passing of a point, telling which, and nothing else of it is left to run."""
    point = POINTS[verb][name]
    whole = getattr(point.owner, point.function)
    left = [passes]

    def pass_by() -> None:
        left[0] -= 1
        if left[0] <= 0:
            tell(name)
            os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(whole)
    def fused(*args: Any, **kwargs: Any) -> Any:
        if point.when == "before":
            pass_by()
        if point.when == "within" and not point.something:
            threading.Timer(_WITHIN_S, pass_by).start()
        result = whole(*args, **kwargs)
        if point.when == "after" and (result or not point.something):
            pass_by()
        if point.when == "within" and point.something and result:
            threading.Timer(_WITHIN_S, pass_by).start()
        return result

    setattr(point.owner, point.function, fused)
