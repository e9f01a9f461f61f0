"""A thread that looks after something in the ledger: when the bell rings, and by itself after a while."""

import threading
from abc import ABC, abstractmethod

from dicom_node.store.bell import Bell, Topic


class Watch(ABC):
    """Takes one turn after another, until it is stopped.

    What is to be done stands in the ledger: a turn that fails is told of, and another one comes.
    """

    def __init__(self, bell: Bell, topic: Topic, *, name: str, rest_s: float) -> None:
        """Listen from now on; rest_s: how long it sleeps after a turn that failed, unless it is woken."""
        self._listener = bell.listen(topic)
        self._rest_s = rest_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def take_turn(self) -> float:
        """Do what is to be done, and return how long there is nothing to do if no bell rings."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """Tell of a turn that failed."""

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the turn that is being taken."""
        self._stopping.set()
        self._listener.wake()
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            rest_s = self._rest_s
            try:
                rest_s = self.take_turn()
            except Exception as error:  # the outermost loop of this thread: what is to be done stands in the ledger, and is looked at again
                self.failed(error)
            self._listener.wait(rest_s)
