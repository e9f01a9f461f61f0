"""A program that delivers and is killed at its first response: after the destination has the object, before the ledger knows.

python -m tests.walks.dying_sender STORAGE PACS_ADDRESS LEASE_S
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from dicom_node.config import NodeConfig
from dicom_node.deliver import Deliverer
from dicom_node.store import Deliveries, Store


class _Dying(Deliveries):
    def sent(self, *_: Any, **__: Any) -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return False


def main(storage: str, pacs: str, lease_s: str) -> None:
    """Deliver until killed."""
    store = Store.open(Path(storage))
    dying = replace(store, deliveries=_Dying(store.database, store.bell))
    config = NodeConfig.model_validate({"remotes": {"pacs": {"ae": pacs, "may": ["receive"]}}})
    Deliverer(config, dying, lease_s=float(lease_s)).start()
    time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
