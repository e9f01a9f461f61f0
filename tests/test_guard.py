"""Who is who: decisions about certificates, user identities and what a peer is wanted for."""

import hashlib
import ssl
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dicom_node.config import NodeConfig, Remote, Tls
from dicom_node.domain import ConfigError
from dicom_node.guard import Certificate, Reloading, Shown, credentials, days_left, denied, probe_node, server_context
from dicom_node.guard.certificate import certificate_in
from dicom_node.guard.probe import wishes
from tests.certificates import Pair, authority, signed

CT = Certificate(fingerprint="ab" * 32, names=frozenset({"ct.example", "CT of the emergency room"}))
OTHER = Certificate(fingerprint="cd" * 32, names=frozenset({"mr.example"}))
TLS = {"certificate": "node.pem", "key": "node.key", "clients": "authority.pem"}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Return an authority, and two certificates that it has signed, of which one has expired."""
    folder = tmp_path_factory.mktemp("pki")
    root = authority(folder, "root")
    return {"root": root, "node": signed(root, folder, "node"), "old": signed(root, folder, "old", days=-1)}


def remote(**more: object) -> Remote:
    return Remote.model_validate({"ae": "CT@127.0.0.1:104", "may": ["send"], **more})


# --------------------------------------------------------------------------------------------------------------- access


@pytest.mark.parametrize("wanted", ["sha256:" + "AB:" * 31 + "AB", "sha256:" + "ab" * 32, "ct.example", "CT.EXAMPLE", "CT of the emergency room"])
def test_a_title_is_bound_to_a_certificate_by_fingerprint_or_name(wanted: str) -> None:
    """PS3.8 Table 9-21: calling AE title not recognized."""
    bound = [remote(certificate=wanted)]
    assert denied(bound, "CT", Shown(certificate=CT)) is None
    for shown in (Shown(certificate=OTHER), Shown()):
        denial = denied(bound, "CT ", shown)
        assert denial is not None
        assert (denial.result, denial.source, denial.reason) == (1, 1, 3)
    assert denied(bound, "MR", Shown(certificate=OTHER)) is None, "another title is not bound by it"


def test_two_remotes_of_one_title_have_each_its_own_certificate() -> None:
    both = [remote(certificate="ct.example"), remote(ae="CT@127.0.0.2:104", certificate="mr.example")]
    assert denied(both, "CT", Shown(certificate=CT)) is None
    assert denied(both, "CT", Shown(certificate=OTHER)) is None
    assert denied([*both, remote(ae="CT@127.0.0.3:104")], "CT", Shown()) is not None, "one that is not bound opens no door beside"


@pytest.mark.parametrize(
    ("shown", "is_taken"),
    [
        (Shown(), False),
        (Shown(identity_type=2, name=b"ct", passcode=b"secret"), True),
        (Shown(identity_type=2, name=b"ct", passcode=b"secret "), False),
        (Shown(identity_type=2, name=b"mr", passcode=b"secret"), False),
        (Shown(identity_type=1, name=b"ct"), False),
        (Shown(identity_type=5, name=b"ct", passcode=b"secret"), False),
    ],
)
def test_a_caller_that_must_show_a_passcode_is_rejected_without_it(shown: Shown, is_taken: bool) -> None:
    """PS3.7 D.3.3.7: only type 2, user name and passcode, shows both."""
    asked = [remote(must_show={"name": "ct", "passcode_file": "secret.txt"})]
    denial = denied(asked, "CT", shown, lambda _: b"secret")
    assert (denial is None) == is_taken
    if denial is not None:
        assert (denial.result, denial.source, denial.reason) == (1, 1, 1)
        assert "secret" not in denial.why


def test_a_name_is_enough_where_no_passcode_is_asked_for() -> None:
    asked = [remote(must_show={"name": "ct"})]
    assert denied(asked, "CT", Shown(identity_type=1, name=b"ct")) is None
    assert denied(asked, "CT", Shown(identity_type=2, name=b"ct", passcode=b"any")) is None
    assert denied(asked, "CT", Shown(identity_type=1, name=b"mr")) is not None


# -------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"node": {"tls": {"certificate": "a", "key": "b"}}}, "must show a certificate"),
        ({"remotes": {"ct": {"ae": "CT@h:1", "certificate": "ct"}}}, "for which nobody asks"),
        ({"remotes": {"ct": {"ae": "CT@h:1", "certificate": "sha256:12"}}, "node": {"tls": TLS}}, "64 hexadecimal digits"),
        ({"remotes": {"ct": {"ae": "CT@h:1", "must_show": {"name": "a", "passcode_file": "b"}}}}, "over TLS alone"),
        ({"remotes": {"ct": {"ae": "CT@h:1", "user": {"name": "a", "passcode_file": "b"}}}}, "over TLS alone"),
    ],
)
def test_what_would_not_be_safe_does_not_load(said: dict[str, object], why: str) -> None:
    """Passcodes go over TLS alone, and a caller shows its certificate unless a site says that it need not."""
    with pytest.raises(ValueError, match=why):
        NodeConfig.model_validate(said)


# --------------------------------------------------------------------------------------------------- files that change


def test_what_is_built_from_files_is_built_anew_when_they_change_and_kept_when_they_break(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")

    def build() -> str:
        if file.read_text() == "":
            raise ConfigError("it is empty", hint="Fill it.")
        return file.read_text()

    built = Reloading(build, [file])
    assert built.now() == "one"
    file.write_text("another")
    with capture_logs() as told:
        assert built.now() == "another"
        assert built.now() == "another"
        file.write_text("")
        assert built.now() == "another"
        assert built.now() == "another"
        file.write_text("a third")
        assert built.now() == "a third"
    assert [line["event"] for line in told] == ["guard.reloaded", "guard.not_reloaded", "guard.reloaded"]


def test_files_that_cannot_be_used_are_named_with_what_to_do(tmp_path: Path, pki: dict[str, Pair]) -> None:
    node, junk = pki["node"], tmp_path / "junk.pem"
    junk.write_text("nothing")
    for certificate, key, clients, why in (
        (tmp_path / "none.pem", node.key, pki["root"].certificate, r"node.tls.certificate: .*none.pem cannot be read: No such file"),
        (node.certificate, pki["old"].key, pki["root"].certificate, r"old.key is not the key of .*node.pem"),
        (junk, node.key, pki["root"].certificate, r"junk.pem .* are not a certificate and its key"),
        (node.certificate, node.key, junk, r"node.tls.clients: .*junk.pem holds no certificates"),
    ):
        with pytest.raises(ConfigError, match=why) as raised:
            server_context(Tls(certificate=certificate, key=key, clients=clients))
        assert raised.value.hint


def test_contexts_are_of_bcp_195(pki: dict[str, Pair]) -> None:
    """PS3.15 B.12 and B.13: TLS 1.2 at least, forward secrecy, authenticated encryption; both ends show who they are."""
    for profile in ("bcp195", "modified"):
        tls = Tls(certificate=pki["node"].certificate, key=pki["node"].key, clients=pki["root"].certificate, profile=profile)
        context = server_context(tls).now()
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.verify_mode == ssl.CERT_REQUIRED
        names = [suite["name"] for suite in context.get_ciphers()]
        assert all(name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "CHACHA20" in name) for name in names), names
        assert {suite["protocol"] for suite in context.get_ciphers()} == {"TLSv1.3", "TLSv1.2"}


def test_a_passcode_is_read_anew_and_stands_in_no_text(tmp_path: Path, pki: dict[str, Pair]) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("open sesame\nnot this\n")
    tls = {"authorities": pki["root"].certificate}
    cloud = remote(tls=tls, user={"name": "node", "passcode_file": secret})
    found = credentials(NodeConfig().node, cloud)
    assert found.identity is not None
    assert found.identity.passcode == b"open sesame"
    assert "sesame" not in repr(found)
    assert found.tls is not None
    assert found.tls.server_name == "127.0.0.1"
    secret.write_text("another")
    again = credentials(NodeConfig().node, cloud)
    assert again.identity is not None
    assert again.identity.passcode == b"another"


# ---------------------------------------------------------------------------------------------------------------- check


def test_days_left_are_read_from_the_certificate_itself(pki: dict[str, Pair]) -> None:
    """RFC 5280 4.1.2.5."""
    now = time.time()
    assert days_left(certificate_in(pki["node"].certificate), now) == 89
    assert days_left(certificate_in(pki["old"].certificate), now) in (-2, -1)
    for junk in (b"", b"\x30", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x30\x00", bytes(300)):
        with pytest.raises(ValueError, match="not a certificate"):
            days_left(junk, now)


def test_check_tells_of_the_nodes_own_certificate(pki: dict[str, Pair]) -> None:
    for name, is_fine, hinted in (("node", True, False), ("old", False, True)):
        found = probe_node(Tls(certificate=pki[name].certificate, key=pki[name].key, anonymous=True), time.time())
        assert (found.ok, bool(found.hint)) == (is_fine, hinted)
    assert probe_node(Tls(certificate=pki["node"].certificate, key=pki["node"].key, anonymous=True), time.time() + 70 * 86400).hint, "it ends soon"


def test_what_is_wanted_of_a_peer_follows_from_what_the_site_says_of_it() -> None:
    assert wishes(remote()) == ()
    receives = wishes(remote(may=["receive"]))
    assert [wish.what for wish in receives if wish.must] == ["storage of Segmentation", "storage of Comprehensive 3D SR"]
    all_of_it = remote(retrieve="get", storage_commitment=True, orders=True, notify=True)
    asked = ["C-FIND", "C-GET", "storage commitment", "Modality Worklist", "Instance Availability Notification"]
    assert [wish.what for wish in wishes(all_of_it)] == asked
    assert [(wish.what, wish.must) for wish in wishes(remote(tasks="triggered"))] == [("UPS Pull", True), ("UPS Watch", False)]
    assert wishes(remote(tasks="pull", web_url="https://tasks.example/dicom-web")) == ()
    assert wishes(remote(may=["receive"], segmentation="LABELMAP"))[0].what == "storage of Label Map Segmentation"


def test_a_fingerprint_is_what_openssl_prints(pki: dict[str, Pair]) -> None:
    shown = Certificate(fingerprint=hashlib.sha256(certificate_in(pki["node"].certificate)).hexdigest())
    assert shown.is_the(f"sha256:{pki['node'].fingerprint}")
