"""What a long benchmark is doing now, for whoever watches; nobody need watch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_watchers: list[Callable[[str], None]] = []


@contextmanager
def watched(watcher: Callable[[str], None]) -> Iterator[None]:
    """Tell this watcher for as long as it lasts."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def say(doing: str) -> None:
    """Tell who watches what is being done."""
    for watcher in _watchers:
        watcher(doing)
