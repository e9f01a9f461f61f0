"""Work on many slices at once, on as many threads as the node gives a model's process.

It helps where the work is done by libraries that let go of Python's lock meanwhile, as numpy, scipy.ndimage and scikit-image do for whole slices.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2  # results for each thread that may wait to be taken: what is in memory is bounded, however many slices there are


def threads() -> int:
    """Return how many threads this process may use: what the node set in OMP_NUM_THREADS, else the processors that there are."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(given)) if given.isdecimal() else processors


def each(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield what a function returns for each item, in their order, several worked on at once.

    Raises
    ------
    What the function raised, at the item's turn; items that come after are no longer begun.
    """
    many = threads()
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(many) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= many * AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
