"""Rules that a person is still writing are tried in a process of their own, which is ended when it takes too long.

An expression of `matches` may look for ever at sixty characters, and a thread that does so stops its whole process.
"""

import multiprocessing
import resource
import threading
from multiprocessing.connection import Connection

from dicom_node.config import Site, rules_from
from dicom_node.domain import ConfigError, NodeError, Transient, fault
from dicom_node.serve.explaining import tried
from dicom_node.store import Store
from dicom_node.web import Tried

LIMIT_S = 30.0
_turn = threading.BoundedSemaphore(1)


def tried_apart(site: Site, text: str, studies: int, now: float, limit_s: float = LIMIT_S) -> tuple[Tried, ...]:
    """Say for the last studies what rules in TOML would make of them, beside what was made.

    Raises
    ------
    ConfigError: the text is no TOML, a rule in it cannot run, or they take too long.
    Transient: somebody else tries rules just now, or the ledger does not answer.
    """
    edited = Site(config=rules_from(text, site.config), models=site.models)
    if not _turn.acquire(blocking=False):
        raise Transient("somebody else tries rules just now", hint="Try again in a moment.")
    try:
        answer = _answer(edited, studies, now, limit_s)
    finally:
        _turn.release()
    if isinstance(answer, str):
        raise ConfigError(answer, hint="Try fewer studies, or look at the expressions of `matches`.")
    return answer


def _answer(edited: Site, studies: int, now: float, limit_s: float) -> tuple[Tried, ...] | str:
    """Return what the other process says, or why it says nothing."""
    spawn = multiprocessing.get_context("spawn")  # not fork: this process has threads
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_try, args=(theirs, edited, studies, now, int(limit_s) + 1), name="trying rules", daemon=True)
    process.start()
    theirs.close()
    try:
        found: tuple[Tried, ...] | str = ours.recv() if ours.poll(limit_s) else f"these rules were not done with {studies} studies in {limit_s:g} s"
        return found
    except EOFError:
        return f"these rules could not be tried on {studies} studies"
    finally:
        process.kill()
        process.join()
        ours.close()


def _try(answer: Connection, edited: Site, studies: int, now: float, limit_s: int) -> None:
    """Be the process that tries them; the system ends it, should nobody be left who could."""
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))
    store = Store.of(edited.config.node)
    try:
        answer.send(tried(edited, store, studies, now))
    except NodeError as error:
        answer.send(str(error))
    except Exception as error:  # the outermost of this process: its text on the console might quote a header
        answer.send(fault(error))
    finally:
        store.close()
