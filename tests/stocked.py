"""A store that holds files as if they had been received, with no socket."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from dicom_node.domain import Instance
from dicom_node.receive.folder import study_of
from dicom_node.store import Store
from tests.contracts.arrange import NOW, sealed


def stock(store: Store, files: Iterable[Path]) -> list[Instance]:
    """Put files into a store, and return what they are."""
    kept = []
    for file in files:
        (seen,) = study_of([file]).instances
        name = sealed(store, file.read_bytes(), seen.study_instance_uid)
        kept.append(replace(seen, path=name, received_at=NOW, calling_ae="SCANNER"))
        store.instances.record(kept[-1])
    store.instances.settle()
    return kept
