"""HL7 v2 messages for tests, and a second implementation (python-hl7) as the system that takes results."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import hl7
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server

STUDY = "1.2.826.0.1.3680043.8.498.7001"
OMI = (
    "MSH|^~\\&|RIS|HOSPITAL|DICOM_NODE|DICOM_NODE|20261127120000||OMI^O23^OMI_O23|M1|P|2.5.1||||||UNICODE UTF-8",
    "PID|1||MARKED-1^^^HOSPITAL&1.2.3&ISO^MR||Märked^Patient||19430721|F",
    "PV1|1|O",
    "ORC|NW|PL1^RIS|FI1^RIS||SC",
    "TQ1|1||||||||S^Stat^HL70485",
    "OBR|1|PL1^RIS|FI1^RIS|LUNGVOL^Lung volumes^99HOSP|||||||||||||||||||||||||||R05^cough \\T\\ fever^I10",
    f"IPC|ACC1^RIS|RP1^RIS|{STUDY}^RIS|SPS1^RIS|CT",
)
ORM = (
    "MSH|^~\\&|RIS|HOSPITAL|DICOM_NODE|DICOM_NODE|20261127120000||ORM^O01|M2|P|2.3.1||||||8859/1",
    "PID|1||MARKED-1^^^HOSPITAL||Märked^Patient||19430721|F",
    "PV1|1|O",
    "ORC|NW|PL1^RIS|FI1^RIS||SC||^^^^^R",
    "OBR|1|PL1^RIS|FI1^RIS|LUNGVOL^Lung volumes^99HOSP^LV^Volumes^L||||||||||||||ACC1|RP1|SPS1",
    f"ZDS|{STUDY}^100^Application^DICOM",
)


def message(lines: Sequence[str], *, codec: str = "utf-8", end: str = "\r") -> bytes:
    """Return a message as it is sent."""
    return "".join(f"{line}{end}" for line in lines).encode(codec)


def changed(lines: Sequence[str], **fields: str) -> tuple[str, ...]:
    """Return a message with other fields, such as MSH_10="M3"; a segment's name alone is left out by None."""
    found = [line.split("|") for line in lines]
    for key, value in fields.items():
        name, _, number = key.partition("_")
        one = next(line for line in found if line[0] == name)
        at = int(number) - (name == "MSH")
        one += [""] * (at + 1 - len(one))
        one[at] = value
    return tuple("|".join(line) for line in found)


def without(lines: Sequence[str], *names: str) -> tuple[str, ...]:
    """Return a message without some segments."""
    return tuple(line for line in lines if line[:3] not in names)


@dataclass
class Ris:
    """Takes messages. answers: how the next ones are acknowledged, then AA; "" : the connection ends without an answer; "-": nothing comes."""

    port: int = 0
    answers: list[str] = field(default_factory=list)
    messages: list[hl7.Message] = field(default_factory=list)

    async def converse(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                said = await reader.readmessage()
                self.messages.append(said)
                answer = self.answers.pop(0) if self.answers else "AA"
                if answer == "-":
                    await asyncio.sleep(60)
                if not answer:
                    break
                writer.writemessage(said.create_ack(answer) if len(answer) == 2 else hl7.parse(answer))
                await writer.drain()
        writer.close()


@contextlib.contextmanager
def ris(context: ssl.SSLContext | None = None, port: int = 0) -> Iterator[Ris]:
    """Give such a system, in a loop of its own."""
    kept, ready, ending = Ris(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = await start_hl7_server(kept.converse, "127.0.0.1", port, encoding="utf-8", ssl=context)
        kept.port = server.sockets[0].getsockname()[1]
        ready.set()
        await ending.wait()
        server.close()
        others = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield kept
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(30)
        loop.close()
