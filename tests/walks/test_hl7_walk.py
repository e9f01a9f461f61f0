"""A RIS of python-hl7's orders analyses over MLLP and takes findings; and whoever is no RIS is sent away, and keeps nobody waiting."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hl7
import pytest
from hl7.client import MLLPClient
from structlog.testing import capture_logs

from dicom_node.config import ConfigError, NodeConfig, load_site
from dicom_node.domain import Asked, MessageState, Order, OrderState, Transient
from dicom_node.notify.tellers import Teller
from dicom_node.worklist import Hl7Listener
from tests import certificates, phantoms
from tests.hl7v2 import OMI, ORM, STUDY, Ris, changed, message, ris
from tests.reported import Node
from tests.verbs import run

FAKES = Path(__file__).parents[1] / "models"
NAMES = ("MARKED", "Märked", "19430721")


class Orders:
    """Does what is asked, as somebody would who knows an order again."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.made: dict[str, str] = {}
        self.away = False

    def __call__(self, one: Asked) -> str:
        if self.away:
            raise Transient("the ledger does not answer")
        self.asked.append(one)
        return self.made.setdefault(one.key, f"2.25.{len(self.made) + 1}")


@contextmanager
def listening(orders: Callable[[Asked], str], *, stops: bool = False, **how: Any) -> Iterator[Hl7Listener]:
    """Let a node listen at a free port."""
    listener = Hl7Listener(NodeConfig.model_validate({"hl7": {"port": 0, "timeout_s": 20.0, **how}}), orders)
    listener.start()
    try:
        yield listener
        assert stops or listener.alive
    finally:
        listener.stop()


def code_of(answered: bytes) -> str:
    return str(hl7.parse(answered.strip(b"\x0b\x1c\r").decode()).segment("MSA")[1])


def line_to(listener: Hl7Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), 30)


def is_closed(line: socket.socket) -> bool:
    line.settimeout(60)
    try:
        return line.recv(1) == b""
    except ConnectionError:
        return True


# ------------------------------------------------------------------------------------------------------------- orders in


def test_a_ris_orders_changes_and_cancels() -> None:
    """Over one connection; what is sent again is known again."""
    orders = Orders()
    with listening(orders) as listener, MLLPClient("127.0.0.1", listener.port) as client:
        for lines in (OMI, OMI, changed(OMI, ORC_1="XO", MSH_10="M3"), changed(OMI, ORC_1="CA", MSH_10="M4")):
            assert code_of(client.send_message(hl7.parse(message(lines).decode()))) == "AA"
        assert code_of(client.send_message(message(ORM, codec="latin-1"))) == "AA"
        orders.away = True
        assert code_of(client.send_message(message(OMI))) == "AR"
    assert [str(one.act) for one in orders.asked] == ["NEW", "NEW", "CHANGE", "CANCEL", "NEW"]
    assert len(orders.made) == 1 and {one.study_instance_uid for one in orders.asked} == {STUDY}
    assert orders.asked[0] == orders.asked[1]


def test_messages_that_come_together_or_in_pieces_are_answered_one_by_one() -> None:
    data = b"".join(b"\x0b" + message(changed(OMI, MSH_10=f"M{n}")) + b"\x1c\r" for n in range(3))
    with listening(Orders()) as listener, line_to(listener) as line:
        for start in range(0, len(data), 199):
            line.sendall(data[start : start + 199])
        line.shutdown(socket.SHUT_WR)
        answered = b"".join(iter(lambda: line.recv(65536), b""))
    said = [hl7.parse(one.strip(b"\x0b\r").decode()) for one in answered.split(b"\x1c\r")[:-1]]
    assert [str(one.segment("MSA")[2]) for one in said] == ["M0", "M1", "M2"]


def test_who_may_not_send_is_closed_at_once() -> None:
    orders = Orders()
    with capture_logs() as logs, listening(orders, from_addresses=["10.0.0.0/8"]) as listener, line_to(listener) as line:
        assert is_closed(line)
    assert not orders.asked and any(one["event"] == "hl7.connection_refused" for one in logs)


def test_more_connections_than_the_site_wants_are_closed() -> None:
    """Those that stand are served; when one ends another may come."""
    with listening(Orders(), connections=1) as listener:
        with MLLPClient("127.0.0.1", listener.port) as client:
            assert code_of(client.send_message(message(OMI))) == "AA"
            with line_to(listener) as line:
                assert is_closed(line)
            assert code_of(client.send_message(message(OMI))) == "AA"
        until = time.monotonic() + 30
        while time.monotonic() < until:  # the end of a connection is seen a moment later
            with line_to(listener) as line:
                line.sendall(b"\x0b" + message(OMI) + b"\x1c\r")
                try:
                    if line.recv(65536):
                        return
                except ConnectionError:
                    continue
        raise AssertionError("nobody was let in again")


@pytest.mark.parametrize(
    "data",
    [
        b"\x0b" + b"x" * ((1 << 20) + 10),  # longer than a message may be
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n" * 100,  # not framed
        b"\x0bhello\x1c\r",  # framed, and not HL7
        b"\x16\x03\x01" + b"\x00" * 2000,  # TLS where there is none
    ],
)
def test_what_is_no_message_ends_the_connection(data: bytes) -> None:
    """And nobody else's."""
    with listening(Orders()) as listener:
        with line_to(listener) as line:
            try:
                line.sendall(data)
                assert is_closed(line)
            except ConnectionError:
                pass
        with MLLPClient("127.0.0.1", listener.port) as client:
            assert code_of(client.send_message(message(OMI))) == "AA"


def test_who_is_slow_or_silent_is_not_waited_for() -> None:
    """A message that does not end, and a connection on which nothing comes."""
    with listening(Orders(), timeout_s=0.3, idle_s=0.3) as listener:
        with line_to(listener) as line:
            line.sendall(b"\x0bMSH|")
            assert is_closed(line)
        with line_to(listener) as line:
            assert is_closed(line)


def test_a_node_that_stops_answers_what_it_has_begun() -> None:
    """The order is not done without the sender being told so; then the connection ends."""
    began, go_on = threading.Event(), threading.Event()

    def request(_: Asked) -> str:
        began.set()
        assert go_on.wait(60)
        return "1.2.3"

    with listening(request, stops=True) as listener, line_to(listener) as line:
        line.sendall(b"\x0b" + message(OMI) + b"\x1c\r")
        assert began.wait(60)
        stopping = threading.Thread(target=listener.stop)
        stopping.start()
        go_on.set()
        line.settimeout(60)
        assert code_of(line.recv(65536)) == "AA"
        assert is_closed(line)
        stopping.join(60)
        assert not stopping.is_alive()


def test_a_port_that_is_taken_is_said() -> None:
    with listening(Orders()) as listener, pytest.raises(ConfigError, match="cannot be listened on"), listening(Orders(), port=listener.port):
        pass


def test_without_a_port_nothing_listens() -> None:
    listener = Hl7Listener(NodeConfig(), Orders())
    listener.start()
    assert listener.alive and listener.port == 0
    listener.stop()


def test_over_tls_who_calls_shows_a_certificate(tmp_path: Path) -> None:
    """And who shows none is not heard."""
    by = certificates.authority(tmp_path, "authority")
    ours, theirs = (certificates.signed(by, tmp_path, name) for name in ("node", "ris"))
    tls = {"certificate": str(ours.certificate), "key": str(ours.key), "clients": str(by.certificate)}
    context = ssl.create_default_context(cafile=str(by.certificate))
    orders = Orders()
    with listening(orders, tls=tls) as listener:
        with line_to(listener) as plain, pytest.raises(OSError), context.wrap_socket(plain, server_hostname="localhost") as line:
            line.sendall(b"\x0b" + message(OMI) + b"\x1c\r")
            if not line.recv(10):
                raise ConnectionError
        context.load_cert_chain(theirs.certificate, theirs.key)
        with line_to(listener) as plain, context.wrap_socket(plain, server_hostname="localhost") as line:
            line.sendall(b"\x0b" + message(OMI) + b"\x1c\r")
            assert code_of(line.recv(65536)) == "AA"
    assert len(orders.asked) == 1


# ---------------------------------------------------------------------------------------------------------- findings out


class House:
    """A node whose model has found something of which a RIS wants to be told."""

    def __init__(self, folder: Path, to: str, **more: str) -> None:
        folder.mkdir(exist_ok=True)
        self.node = Node(folder, {"good": FAKES / "good"})
        told = {"name": "ris", "to": to, "application": "RIS", "facility": "RAD", **more}
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in told.items())
        findings = 'patient_identity = true\ntimeout_s = 10.0\nfindings = [{ concept = "Volume", min = 0.0 }]\n'
        self.node.config.write_text(f"{self.node.config.read_text()}[[notify]]\n{lines}{findings}")
        self.config = load_site(self.node.config).config
        self.now = time.time()
        self.teller().decide()

    def teller(self) -> Teller:
        return Teller(self.config, self.node.store, lambda: self.now, self.config.notify[0], threading.Event(), 0.0)

    def find(self) -> str:
        """Let the model find it, and return the study."""
        named = {"PatientName": "Märked^Name", "PatientID": "MARKED-1", "IssuerOfPatientID": "HOSPITAL", "AccessionNumber": "ACC1"}
        images = phantoms.series(phantoms.marked(value=2000), seed="told", BodyPartExamined="CHEST", SpecificCharacterSet="ISO_IR 192", **named)
        uid = self.node.receive(images)
        assert [job.state for job in self.node.work()] == ["COMPLETED"]
        self.now = time.time()
        return uid

    def turn(self, later_s: float = 0.0) -> None:
        self.now += later_s
        teller = self.teller()
        teller.decide()
        teller.tell()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[House, Ris]]:
    with ris() as kept:
        made = House(tmp_path, f"mllp://127.0.0.1:{kept.port}")
        yield made, kept
        made.node.close()


def test_a_finding_goes_to_the_ris_and_names_its_patient_there_alone(house: tuple[House, Ris]) -> None:
    """ORU^R01, once; neither the log nor what the ledger keeps of it names the patient."""
    node, kept = house
    uid = node.find()
    with capture_logs() as logs:
        for _ in range(2):
            node.turn()
    (said,) = kept.messages
    assert [str(said.segment("MSH")[n]) for n in (5, 6, 9, 18)] == ["RIS", "RAD", "ORU^R01^ORU_R01", "UNICODE UTF-8"]
    assert (str(said.segment("PID")[3]), str(said.segment("PID")[5])) == ("MARKED-1^^^HOSPITAL", "Märked^Name")
    assert [str(said.segment("OBR")[n]) for n in (3, 18, 25)] == ["ACC1", "ACC1", "P"]
    obx = said.segments("OBX")
    assert str(obx[0][5]).startswith("UNVERIFIED") and str(obx[1][5]) == uid and {str(one[11]) for one in obx} == {"P"}
    numbers = [one for one in obx if str(one[2]) == "NM"]
    assert numbers and all(float(str(one[5])) >= 0 and str(one[6]).endswith("UCUM") and str(one[8]) == "A" for one in numbers)
    (one,) = node.node.store.messages.list()
    assert one.state is MessageState.TOLD
    assert not any(name in f"{logs}{one}" for name in NAMES)
    assert node.node.store.journal.of_study(uid)[-1].kind == "told"


def test_a_finding_names_the_order_of_its_study(house: tuple[House, Ris]) -> None:
    """What the RIS itself said of it."""
    node, kept = house
    uid = node.find()
    order = Order(study_instance_uid=uid, accession_number="ACC1", requested_procedure_id="RP1", placer_order_number="PL1", filler_order_number="FI1")
    assert node.node.store.orders.settle(uid, OrderState.KNOWN, order, who="ris", why="found", now=node.now)
    node.turn()
    obr = kept.messages[0].segment("OBR")
    assert [str(obr[n]) for n in (2, 3, 18, 19)] == ["PL1", "FI1", "ACC1", "RP1"]


@pytest.mark.parametrize("answer", ["AE", "AR", "", "MSH|^~\\&|R|R|||||ACK|1|P|2.5.1\rMSA|AA|another\r"])
def test_what_is_not_taken_is_sent_again_under_its_control_id(house: tuple[House, Ris], answer: str) -> None:
    """Refused, no answer, or the answer to something else."""
    node, kept = house
    node.find()
    kept.answers.append(answer)
    node.turn()
    (one,) = node.node.store.messages.list()
    assert (one.state, one.attempts) == (MessageState.PENDING, 1) and not any(name in one.reason for name in NAMES)
    node.turn(later_s=120)
    assert node.node.store.messages.list()[0].state is MessageState.TOLD
    assert len({str(said.segment("MSH")[10]) for said in kept.messages}) == 1 and len(kept.messages) == 2


def test_a_ris_that_is_away_is_told_later(tmp_path: Path, free_port: int) -> None:
    node = House(tmp_path, f"mllp://127.0.0.1:{free_port}")
    node.find()
    node.turn()
    assert "does not answer" in node.node.store.messages.list()[0].reason
    with ris(port=free_port) as kept:
        node.turn(later_s=120)
    assert len(kept.messages) == 1
    node.node.close()


def test_over_tls_a_ris_is_who_its_certificate_says(tmp_path: Path) -> None:
    """mllps; another one's certificate is told nothing."""
    by, other = (certificates.authority(tmp_path, name) for name in ("authority", "other"))
    pair = certificates.signed(by, tmp_path, "ris")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    with ris(context) as kept:
        for trusted, taken in ((other, 0), (by, 1)):
            node = House(tmp_path / f"{taken}", f"mllps://localhost:{kept.port}", authorities=str(trusted.certificate))
            node.find()
            node.turn()
            assert len(kept.messages) == taken
            node.node.close()


def test_a_test_message_is_of_nobody(house: tuple[House, Ris]) -> None:
    """Processing ID T (HL7 table 0103): a RIS in production does not file it."""
    node, kept = house
    said = run("notify", "--test", "ris", "--config", node.node.config)
    assert said.code == 0, said.err
    (one,) = kept.messages
    assert (str(one.segment("MSH")[11]), str(one.segment("PID")[5])) == ("T", "TEST^TEST")
    kept.answers.append("AE")
    assert run("notify", "--test", "ris", "--config", node.node.config).code != 0
