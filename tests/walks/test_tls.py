"""TLS both ways against DCMTK, and callers that show, or do not show, that they are who they say."""

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from dicom_node.config import Node, Remote
from dicom_node.domain import AE, ConfigError, PeerUnavailable
from dicom_node.guard import Finding, credentials, probe
from dicom_node.wire import StoredFile, peer
from tests import phantoms
from tests.certificates import Pair, authority, signed
from tests.dcmtk import storescp
from tests.orthanc import free_ports
from tests.peers import need
from tests.walks.kept import House, house
from tests.walks.node import wait_for

ECHO = [("1.2.840.10008.1.1", "1.2.840.10008.1.2")]
PATHS = ("fast", "stock")
Pki = dict[str, Pair]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Return an authority, those whom it knows, and one whom another authority knows."""
    folder = tmp_path_factory.mktemp("pki")
    root, other = authority(folder, "root"), authority(folder, "other")
    made = {"root": root, "other": other, "stranger": signed(other, folder, "stranger")}
    made |= {name: signed(root, folder, name) for name in ("node", "pacs", "scanner", "second")}
    return made | {"elsewhere": signed(root, folder, "elsewhere", names="DNS:pacs.example"), "old": signed(root, folder, "old", days=-1)}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an image of more than one PDU."""
    path = tmp_path_factory.mktemp("image") / "image.dcm"
    phantoms.series(phantoms.marked((1, 320, 320), (0, 0, 0)), seed="tls")[0].save_as(path, enforce_file_format=True)
    return path


def node_tls(pki: Pki, **more: Any) -> dict[str, Any]:
    return {"certificate": pki["node"].certificate, "key": pki["node"].key, "clients": pki["root"].certificate, **more}


def shows(pki: Pki, who: str) -> tuple[str | Path, ...]:
    """Return what a DCMTK program needs to show a certificate, and to know the authority of the others'."""
    return "+tls", pki[who].key, pki[who].certificate, "+cf", pki["root"].certificate


def dcmtk(program: str, to: AE, *options: str | Path, calling_ae: str = "CT_ER", files: tuple[Path, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [need(program), "-v", "-aet", calling_ae, "-aec", to.title, *map(str, options), to.host, str(to.port), *map(str, files)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)


def remote(to: AE, pki: Pki, **more: Any) -> Remote:
    return Remote.model_validate({"ae": to, "may": ["receive"], "tls": {"authorities": pki["root"].certificate}, "timeout_s": 10.0, **more})


def node(pki: Pki, who: str = "node") -> Node:
    return Node.model_validate({"tls": {"certificate": pki[who].certificate, "key": pki[who].key, "clients": pki["root"].certificate}})


def echoes(as_node: Node, to: Remote) -> None:
    peer.echo(to.ae, as_node.ae_title, timeout_s=10.0, credentials=credentials(as_node, to))


@contextmanager
def storing(folder: Path, pki: Pki, who: str = "pacs", *options: str | Path) -> Iterator[AE]:
    with storescp(folder, title="PACS", options=(*shows(pki, who), *options)) as to:
        yield to


# ------------------------------------------------------------------------------------------------------ the node is called


@pytest.mark.parametrize("path", PATHS)
def test_who_calls_shows_a_certificate_of_a_known_authority_or_is_refused_and_told_of(tmp_path: Path, pki: Pki, image: Path, path: str) -> None:
    """PS3.15 B.12, IHE ATNA: both ends show who they are; what fails is a Security Alert."""
    with capture_logs() as told, house(tmp_path, path, tls=node_tls(pki)) as ours:
        sent = dcmtk("storescu", ours.ae, *shows(pki, "scanner"), files=(image,))
        assert sent.returncode == 0, sent.stdout
        for options in (("+tls", pki["stranger"].key, pki["stranger"].certificate, "-ic"), ("+tla", "-ic"), ()):
            assert dcmtk("storescu", ours.ae, *options, files=(image,)).returncode != 0
        wrong = ("+tls", pki["scanner"].key, pki["scanner"].certificate, "+cf", pki["other"].certificate)
        assert dcmtk("echoscu", ours.ae, *wrong).returncode != 0  # it does not know ours
        wait_for(lambda: len([line for line in told if line["event"] == "receive.security_alert"]) >= 3)
        assert len(ours.kept().instances) == 1


def test_tls_1_1_is_refused_and_1_2_and_1_3_are_not(tmp_path: Path, pki: Pki) -> None:
    """BCP 195: RFC 8996."""
    with house(tmp_path, "fast", tls=node_tls(pki)) as ours:
        for version, is_taken in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
            place = ["-connect", f"127.0.0.1:{ours.port}", "-cipher", "ALL:@SECLEVEL=0"]
            mine = ["-cert", pki["scanner"].certificate, "-key", pki["scanner"].key]
            command = [need("openssl"), "s_client", version, *place, *map(str, mine), "-brief"]
            said = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
            assert ("CONNECTION ESTABLISHED" in said.stdout + said.stderr) == is_taken, said.stderr


def test_a_title_that_is_bound_to_a_certificate_is_nobody_elses(tmp_path: Path, pki: Pki) -> None:
    """PS3.8 Table 9-21: rejected permanently, calling AE title not recognized; a Security Alert."""
    bound = {"ct": {"ae": "CT_ER@127.0.0.1:104", "may": ["send"], "certificate": f"sha256:{pki['scanner'].fingerprint}"}}
    bound["mr"] = {"ae": "MR@127.0.0.1:104", "may": ["send"], "certificate": "second"}
    with capture_logs() as told, house(tmp_path, "fast", tls=node_tls(pki), remotes=bound) as ours:
        assert dcmtk("echoscu", ours.ae, *shows(pki, "scanner")).returncode == 0
        assert dcmtk("echoscu", ours.ae, *shows(pki, "second"), calling_ae="MR").returncode == 0
        other = dcmtk("echoscu", ours.ae, *shows(pki, "second"))
        assert other.returncode != 0
        assert "Calling AE Title Not Recognized" in other.stdout
        assert dcmtk("echoscu", ours.ae, *shows(pki, "scanner"), calling_ae="MR").returncode != 0
        alerts = wait_for(lambda: [line for line in told if line["event"] == "receive.security_alert"])
        assert alerts[0]["calling_ae"] == "CT_ER"
        assert "another certificate" in alerts[0]["reason"]


def test_a_bound_title_that_shows_no_certificate_is_rejected_where_others_need_none(tmp_path: Path, pki: Pki) -> None:
    bound = {"ct": {"ae": "CT_ER@127.0.0.1:104", "may": ["send"], "certificate": "scanner"}, "mr": {"ae": "MR@127.0.0.1:104", "may": ["send"]}}
    with house(tmp_path, "fast", tls=node_tls(pki, anonymous=True), remotes=bound) as ours:
        assert dcmtk("echoscu", ours.ae, "+tla", "-ic", calling_ae="MR").returncode == 0
        assert dcmtk("echoscu", ours.ae, "+tla", "-ic").returncode != 0
        assert dcmtk("echoscu", ours.ae, *shows(pki, "scanner")).returncode == 0


@pytest.mark.parametrize("path", PATHS)
def test_a_caller_presents_the_user_identity_that_it_must(tmp_path: Path, pki: Pki, image: Path, path: str) -> None:
    """PS3.7 D.3.3.7: by DCMTK, and by this node itself."""
    secret = tmp_path / "secret.txt"
    secret.write_text("open sesame\n")
    asked = {"ct": {"ae": "CT_ER@127.0.0.1:104", "may": ["send"], "must_show": {"name": "ct", "passcode_file": secret}}}
    asked["node"] = {**asked["ct"], "ae": "NODE@127.0.0.1:104"}
    with capture_logs() as told, house(tmp_path / "data", path, tls=node_tls(pki), remotes=asked) as ours:
        mine = shows(pki, "scanner")
        taken = dcmtk("storescu", ours.ae, *mine, "--user", "ct", "--password", "open sesame", files=(image,))
        assert taken.returncode == 0, taken.stdout
        confirmed = dcmtk("storescu", ours.ae, *mine, "--user", "ct", "--password", "open sesame", "--pos-response", files=(image,))
        assert confirmed.returncode == 0, confirmed.stdout
        for wrong in (("--user", "ct", "--password", "guess"), ("--user", "ct"), ()):
            refused = dcmtk("storescu", ours.ae, *mine, *wrong, files=(image,))
            assert refused.returncode != 0
            assert "Rejected Permanent" in refused.stdout, refused.stdout
        us = Node.model_validate({"ae_title": "NODE", "tls": node_tls(pki)})
        echoes(us, remote(ours.ae, pki, user={"name": "ct", "passcode_file": secret}))
        with pytest.raises(PeerUnavailable, match="rejected the association"):
            echoes(us, remote(ours.ae, pki))
    assert "sesame" not in str(told)
    assert "guess" not in str(told)


def test_new_certificates_are_taken_without_a_restart_and_broken_ones_are_not(tmp_path: Path, pki: Pki) -> None:
    """A broken new file keeps the old one, and is told of."""
    mine = {"certificate": tmp_path / "node.pem", "key": tmp_path / "node.key", "clients": tmp_path / "root.pem"}

    def put(who: str, root: str) -> None:
        for key, path in (("certificate", pki[who].certificate), ("key", pki[who].key), ("clients", pki[root].certificate)):
            shutil.copy(path, mine[key])

    put("node", "root")
    with capture_logs() as told, house(tmp_path / "data", "fast", tls=mine) as ours:
        assert dcmtk("echoscu", ours.ae, *shows(pki, "scanner")).returncode == 0
        put("stranger", "root")
        assert dcmtk("echoscu", ours.ae, *shows(pki, "scanner")).returncode != 0  # who calls does not know the new one's authority
        known = ("+tls", pki["scanner"].key, pki["scanner"].certificate, "+cf", pki["other"].certificate)
        assert dcmtk("echoscu", ours.ae, *known).returncode == 0
        mine["key"].write_text("nothing")
        assert dcmtk("echoscu", ours.ae, *known).returncode == 0
        assert [line for line in told if line["event"] == "guard.not_reloaded"]
        put("node", "root")
        assert dcmtk("echoscu", ours.ae, *shows(pki, "scanner")).returncode == 0


# ----------------------------------------------------------------------------------------------------------- the node calls


@pytest.mark.parametrize("path", PATHS)
def test_an_object_goes_out_over_tls_and_arrives_as_it_was(tmp_path: Path, pki: Pki, image: Path, path: str) -> None:
    """Both ways of sending, to DCMTK's SCP, which demands a certificate."""
    with StoredFile(image) as file:
        meta = file.meta
    with storing(tmp_path / "in", pki) as to:
        ours = credentials(node(pki), remote(to, pki))
        context = [(meta.sop_class_uid, meta.transfer_syntax_uid)]
        association = peer.associate(to, "NODE", context, timeout_s=10.0, fast=path == "fast", credentials=ours)
        for number in (1, 2, 3):
            answer = peer.store(association, image, meta, meta.transfer_syntax_uid, message_id=number, timeout_s=10.0)
            assert answer is not None
            assert answer.status == 0
        peer.close(association)
        (arrived,) = (tmp_path / "in").iterdir()
        assert arrived.stat().st_size > 200_000


def told_of(act: Callable[[], None]) -> tuple[str, str]:
    with pytest.raises(PeerUnavailable) as raised:
        act()
    assert raised.value.hint
    return str(raised.value), raised.value.hint


@pytest.mark.parametrize(
    ("who", "more", "why"),
    [
        ("stranger", {}, "of no authority that is known"),
        ("old", {}, "its certificate has expired"),
        ("elsewhere", {}, "its certificate is not of '127.0.0.1'"),
        ("pacs", {"server_name": "wrong.example"}, "its certificate is not of 'wrong.example'"),
    ],
)
def test_a_peers_certificate_that_is_not_right_is_told_of_in_words(tmp_path: Path, pki: Pki, who: str, more: dict[str, str], why: str) -> None:
    with storing(tmp_path / "in", pki, who) as to:
        asked = remote(to, pki, tls={"authorities": pki["root"].certificate, **more})
        said, _ = told_of(lambda: echoes(node(pki), asked))
        assert why in said


def test_another_name_or_the_certificate_itself_is_taken_where_the_site_says_so(tmp_path: Path, pki: Pki) -> None:
    with storing(tmp_path / "in", pki, "elsewhere") as to:
        echoes(node(pki), remote(to, pki, tls={"authorities": pki["root"].certificate, "server_name": "pacs.example"}))
        echoes(node(pki), remote(to, pki, tls={"authorities": pki["elsewhere"].certificate, "server_name": "pacs.example"}))


def test_a_peer_that_demands_a_certificate_or_knows_ours_not_says_so(tmp_path: Path, pki: Pki) -> None:
    with storing(tmp_path / "in", pki) as to:
        said, hint = told_of(lambda: echoes(Node(), remote(to, pki)))
        assert "demands a certificate" in said or "demand a certificate" in hint, said  # its alert may be lost with the connection
        assert "node.tls" in hint
        said, _ = told_of(lambda: echoes(node(pki, "stranger"), remote(to, pki)))
        assert "does not know the authority of this node's certificate" in said, said


def test_a_peer_that_speaks_no_tls_is_told_of_in_words(tmp_path: Path, pki: Pki) -> None:
    with storescp(tmp_path / "in", title="PACS") as to:
        said, hint = told_of(lambda: echoes(node(pki), remote(to, pki)))
        assert "over TLS" in said
        assert "TLS port" in hint or "may speak no TLS" in hint, (said, hint)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = remote(AE("PACS", "127.0.0.1", silent.getsockname()[1]), pki, timeout_s=1.0)
        ours = credentials(node(pki), asked)
        said, _ = told_of(lambda: peer.associate(asked.ae, "NODE", ECHO, timeout_s=1.0, credentials=ours))
        assert "does not go on with the handshake" in said


# ------------------------------------------------------------------------------------------------------------------- check


def by_what(found: Iterator[Finding]) -> dict[str, Finding]:
    return {one.what.partition(": ")[2]: one for one in found}


def test_check_tries_a_peer_step_by_step(tmp_path: Path, pki: Pki) -> None:
    """A storage SCP takes our results, and none of the other services."""
    with storing(tmp_path / "in", pki) as to:
        asked = remote(to, pki, retrieve="move", storage_commitment=True, orders=True, notify=True)
        found = by_what(probe("pacs", asked, node(pki), time.time()))
    steps = ["name", "connection", "TLS", "certificate", "association", "C-ECHO", "storage of Segmentation", "storage of Comprehensive 3D SR"]
    assert list(found)[:8] == steps
    assert all(found[step].ok for step in steps)
    assert found["TLS"].says.startswith("TLSv1.")
    assert "89 days" in found["certificate"].says
    for refused in ("C-FIND", "C-MOVE", "storage commitment", "Modality Worklist", "Instance Availability Notification"):
        assert not found[refused].ok
        assert found[refused].hint


def test_check_ends_where_a_step_fails(tmp_path: Path, pki: Pki) -> None:
    nobody = remote(AE("PACS", "127.0.0.1", free_ports(1)[0]), pki)
    *before, last = probe("pacs", nobody, node(pki), time.time())
    assert [one.what for one in before] == ["remote pacs: name"]
    assert not last.ok
    assert "takes no connection: Connection refused" in last.says
    with storing(tmp_path / "in", pki, "old") as to:
        *before, last = probe("pacs", remote(to, pki), node(pki), time.time())
    assert [one.what for one in before] == ["remote pacs: name", "remote pacs: connection"]
    assert "its certificate has expired" in last.says


def test_a_certificate_that_is_not_there_is_told_of_before_anybody_is_called(tmp_path: Path, pki: Pki) -> None:
    lost = Remote.model_validate({"ae": "PACS@127.0.0.1:104", "may": ["receive"], "tls": {"authorities": tmp_path / "none.pem"}})
    with pytest.raises(ConfigError, match="none.pem cannot be read"):
        credentials(Node(), lost)
    (only,) = probe("pacs", lost, Node(), time.time())
    assert "none.pem cannot be read" in only.says
    with pytest.raises(ConfigError, match="node.tls"):
        House(tmp_path, "fast", tls={**node_tls(pki), "key": pki["pacs"].key})
