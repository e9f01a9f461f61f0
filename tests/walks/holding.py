"""A node that holds what tests ask it for."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread

from dicom_node.config import NodeConfig
from dicom_node.domain import AE
from dicom_node.query import services
from dicom_node.receive import Receiver
from dicom_node.store import Store
from tests.dcmtk import storescu

EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


@contextmanager
def holding(folder: Path, files: Sequence[Path], workstation: AE) -> Iterator[AE]:
    """Run a node that has received files."""
    store = Store.open(folder)
    remotes = {
        "asker": {"ae": "ASKER@127.0.0.1:1", "may": ["send", "query", "move"]},
        "workstation": {"ae": str(workstation), "may": ["receive"]},
    }
    config = NodeConfig.model_validate({"node": {"port": 0, "disk_reserve_mb": 1}, "remotes": remotes})
    receiver = Receiver(config, store, services=services(config, store, store.holdings, time.time))
    receiver.start()
    try:
        node = AE("DICOM_NODE", "127.0.0.1", receiver.port)
        for option, syntax in (("-xe", EXPLICIT), ("-xi", IMPLICIT)):  # each as it lies: storescu changes an object into what was agreed to
            same = [path for path in files if dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax]
            if same:
                sent = storescu(same, node, calling_ae="ASKER", options=[option])
                assert sent.returncode == 0, sent.stdout
        yield node
    finally:
        receiver.stop()
        store.close()
