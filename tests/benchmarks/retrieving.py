"""How fast what is held goes out to who asks for it: C-MOVE and C-GET of a study, the node beside DCMTK's `dcmqrscp`.

Both hold the same files. `movescu` has a study sent to one `storescp`, `getscu` takes it itself; neither keeps what comes, so that only the sending
is measured. Each round asks both for each study, now the one first and now the other; what is counted is the time from the start of the asking
program to its end, which looks into no file. A first round, which is not counted, brings the files into memory.
"""

import os
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from dicom_node.domain import AE
from tests.benchmarks import progress
from tests.benchmarks.images import write_series
from tests.benchmarks.measure import Measure
from tests.benchmarks.receivers import Receiver, ours, send
from tests.dcmtk import dcmqrscp
from tests.dcmtk import storescp as running_storescp
from tests.peers import need

ROUNDS = 7
IMAGES = 1000
KINDS: Mapping[str, int] = {"CT": 512, "small": 48}  # pixels of a side: 525 KB and 6 KB
PROGRAMS: Mapping[str, Sequence[str]] = {
    "C-MOVE": ("movescu", "-aem", "DESTINATION"),
    "C-GET": ("getscu", "--ignore", "-pdu", "131072"),
}
_REMOTES = """
[remotes]
asker = {{ ae = "ASKER@127.0.0.1:104", may = ["query", "move"] }}
scanner = {{ ae = "SCANNER@127.0.0.1:104", may = ["send"] }}
destination = {{ ae = "{destination}", may = ["receive"] }}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archives:
    """The two that are asked, and which study is of which kind."""

    node: AE
    dcmtk: AE
    studies: Mapping[str, str]


def measures(folder: Path, rounds: int = ROUNDS) -> Iterator[Measure]:
    """Retrieve, and say how fast."""
    rates: dict[tuple[str, str], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    with _archives(folder) as archives:
        for number in range(rounds + 1):
            for name in PROGRAMS:
                for kind, study in archives.studies.items():
                    progress.say(f"round {number} of {rounds}: {name} of {kind}")
                    pair = [(0, archives.node), (1, archives.dcmtk)]
                    for which, archive in pair if number % 2 else reversed(pair):
                        rate = IMAGES / _retrieve(archive, name, study)
                        if number:
                            rates[name, kind][which].append(rate)
    for (name, kind), (node, peer) in rates.items():
        ratio = statistics.median(one / other for one, other in zip(node, peer, strict=True))
        yield Measure(
            name=f"{name} of {IMAGES} {kind} images: ours ÷ dcmqrscp",
            ours=statistics.median(node),
            peer=statistics.median(peer),
            unit="images/s",
            ratio=ratio,
            bar=1.0,
            note=f"{min(node):.0f}–{max(node):.0f} beside {min(peer):.0f}–{max(peer):.0f}",
        )


@contextmanager
def _archives(folder: Path) -> Iterator[Archives]:
    """Run both, and the one that is sent to; the node has received the files that the other has in its index."""
    progress.say("making images")
    files = {kind: write_series(folder / kind, "CT", series=10, count=IMAGES // 10, side=side) for kind, side in KINDS.items()}
    with running_storescp(folder / "destination", title="DESTINATION", options=["--fork", "--ignore", "--max-pdu", "131072"]) as destination:
        everything = [path for of_kind in files.values() for path in of_kind]
        remotes = _REMOTES.format(destination=destination)
        with (
            dcmqrscp(folder / "dcmqrscp", everything, moves_to={"destination": destination}) as dcmtk,
            ours(folder / "node", more=remotes) as node,
        ):
            progress.say("the node receives")
            for kind, of_kind in files.items():
                _fill(node, of_kind, folder / f"filling-{kind}")
            studies = {kind: str(dcmread(of_kind[0], stop_before_pixels=True).StudyInstanceUID) for kind, of_kind in files.items()}
            yield Archives(node=node.ae, dcmtk=dcmtk, studies=studies)


def _fill(node: Receiver, files: Sequence[Path], folder: Path) -> None:
    before = node.kept()
    send(Receiver(ae=node.ae, kept=lambda: node.kept() - before), [files], folder)


def _retrieve(archive: AE, name: str, study: str) -> float:
    """Retrieve a study, and return the seconds that it took.

    Raises
    ------
    RuntimeError: some of it did not come.
    """
    program, *options = PROGRAMS[name]
    keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
    command = [need(program), "-v", "-S", "-aet", "ASKER", "-aec", archive.title, *options, *keys, archive.host, str(archive.port)]
    os.sync()
    since = time.perf_counter()
    said = subprocess.run(command, env={**os.environ, "TCP_NODELAY": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    taken_s = time.perf_counter() - since
    if said.returncode or "Success" not in said.stdout[-300:]:
        raise RuntimeError(f"{archive.title} did not send everything: {said.stdout[-300:]!r}")
    return taken_s
