"""A process that writes to the ledger: `python -m tests.contracts.writer STORAGE ADDRESS VERB NAME [NUMBER]`."""

import logging
import os
import sys
import time
from pathlib import Path

from dicom_node.store import Store, instance_name
from tests.contracts import arrange


def main(storage: str, address: str, verb: str, name: str, number: str = "0") -> None:
    """Do one thing, and say what was done."""
    logging.basicConfig(level=logging.DEBUG)
    store = Store.open(Path(storage), address)
    if verb == "open":
        print(os.getpid() > 0)
    if verb == "send":
        for count in range(int(number)):
            arrange.arrive(store, count, study=f"{arrange.STUDY}.{name}", at=time.time())
            arrange.arrive(store, 1000 * int(name) + count, at=time.time())
        print(number)
    if verb == "work":
        print(_work(store, name, int(number)))
    if verb == "write":
        written = arrange.written(store)
        print(written.path, flush=True)
        sys.stdin.readline()
        print(store.instances.record(written).value, flush=True)
    if verb == "begin":
        draft = store.archive.draft()
        draft.write(b"pixels of")
        draft.finish()
        print(instance_name(draft.waiting, arrange.STUDY, arrange.NOW), flush=True)
        sys.stdin.readline()
    store.close()


def _work(store: Store, name: str, number: int) -> str:
    """Claim and complete until every job has ended; say which were done here."""
    done: list[int] = []
    while store.jobs.counts().get("COMPLETED", 0) < number:
        job = arrange.claimed(store, name, at=time.time())
        if job is None:
            time.sleep(0.01)
            continue
        store.jobs.beat(job, now=time.time(), lease_s=arrange.LEASE_S, progress=0.5, note="")
        assert store.jobs.complete(job, [arrange.result_of(store, job)], now=time.time(), why="made SEG")
        done.append(job.id)
    return ",".join(map(str, done))


main(*sys.argv[1:])
