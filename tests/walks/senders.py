"""Real senders: other people's programs, and pynetdicom in every way it can be asked to. Each case sends to one port and is over when it returns."""

import subprocess
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    AllTransferSyntaxes,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE as ApplicationEntity
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import (
    AsynchronousOperationsWindowNegotiation,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.sop_class import Verification

from dicom_node.domain import AE, derived_uid
from dicom_node.receive.door import file_meta
from dicom_node.simulate.scanner import push
from tests import phantoms
from tests.orthanc import ask
from tests.peers import need, need_file

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
COMPRESSED = ("MR_small_RLE.dcm", "JPEG2000.dcm", "SC_rgb_jpeg_dcmtk.dcm", "CT_small.dcm", "image_dfl.dcm")
PRIVATE_SYNTAX = UID("1.3.6.1.4.1.55555.9.9")
BY_REFERENCE = tuple(map(UID, ("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205")))  # JPIP
DEFLATED = (DeflatedExplicitVRLittleEndian, *BY_REFERENCE[1::2])
UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One sender and what it does. pdu_bytes: how long a PDU the receiver says that it takes; stores: how many instances are there afterwards."""

    send: Callable[[AE, Path], object]
    stores: int
    pdu_bytes: int = 131072


def small(seed: str, folder: Path) -> list[Path]:
    """Three images of 2 KB."""
    return phantoms.write(phantoms.series(phantoms.marked((3, 24, 20)), seed=seed), folder)


def large(seed: str, folder: Path) -> list[Path]:
    """Two images of 166 KB, more than the longest PDU that DCMTK sends."""
    return phantoms.write(phantoms.series(phantoms.marked((2, 288, 288)), seed=seed), folder)


def files(*names: str) -> list[Path]:
    """Return some of pydicom's own examples."""
    return [FILES / name for name in names]


# ---------------------------------------------------------------------------------------------------------------- programs


def program(name: str, *options: str, to: AE, paths: Iterable[Path]) -> None:
    """Run one of DCMTK's senders."""
    command = [need(name), "-v", *options, "-aet", "CT_ER", "-aec", to.title, to.host, str(to.port), *map(str, paths)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def dcmtk(name: str, *options: str, images: Callable[[str, Path], list[Path]] = small, **more: Any) -> Case:
    """Return a case of one of DCMTK's senders and its options."""
    seed = f"{name} {options} {more}"
    more.setdefault("stores", 2 if images is large else 3)
    return Case(send=lambda to, folder: program(name, *options, to=to, paths=images(seed, folder)), **more)


def odil(to: AE, folder: Path) -> None:
    """Send by odil, a library of its own in C++."""
    command = [need("odil"), "store", to.host, str(to.port), "CT_ER", to.title, *map(str, small("odil", folder))]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def pixelmed(to: AE, folder: Path) -> None:
    """Send by PixelMed, a library of its own in Java."""
    image = small("pixelmed", folder)[0]
    jars = str(need_file("/usr/share/java/pixelmed.jar"))
    command = [need("java"), "-cp", jars, "com.pixelmed.network.StorageSOPClassSCU", to.host, str(to.port), to.title, "CT_ER", str(image), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def orthanc_stores(url: str, to: AE, paths: Sequence[Path], **options: Any) -> None:
    """Let an Orthanc send files as one job."""
    remote = urllib.request.Request(f"{url}/modalities/replay", data=f'["{to.title}", "{to.host}", {to.port}]'.encode(), method="PUT")
    urllib.request.urlopen(remote, timeout=30).close()
    ids = []
    for path in paths:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/instances", data=path.read_bytes()), timeout=30) as answer:
            ids.append(answer.read().decode().split('"ID" : "')[1].split('"')[0])
    done = ask(f"{url}/modalities/replay/store", {"Resources": ids, "Synchronous": True, "LocalAet": "CT_ER", **options})
    assert done["FailedInstancesCount"] == 0, done


# -------------------------------------------------------------------------------------------------------------- pynetdicom


def call(to: AE, contexts: Sequence[Any], *, max_pdu_bytes: int = 16382, items: Sequence[Any] = ()) -> Association:
    """Associate by pynetdicom. items: more to negotiate."""
    entity = ApplicationEntity("CT_ER")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    association = entity.associate(to.host, to.port, list(contexts), to.title, max_pdu=max_pdu_bytes, ext_neg=list(items))
    assert association.is_established
    return association


def pynetdicom(
    seed: str, *, images: Callable[[str, Path], list[Path]] = small, echo: bool = False, end: str = "release", **more: Any
) -> Callable[..., None]:
    """Return a sender of decoded data sets. echo: after each image, too. end: release or abort. more: for `call`."""

    def send(to: AE, folder: Path) -> None:
        association = call(to, [build_context(CTImageStorage, ExplicitVRLittleEndian), build_context(Verification)], **more)
        for path in images(seed, folder):
            assert association.send_c_store(dcmread(path)).Status == 0
            assert not echo or association.send_c_echo().Status == 0
        association.release() if end == "release" else association.abort()

    return send


def many_contexts(to: AE, folder: Path) -> None:
    """128 presentation contexts; the images go over the last of them."""
    others = [build_context(f"1.2.826.0.1.3680043.10.{number}", ExplicitVRLittleEndian) for number in range(127)]
    association = call(to, [*others, build_context(CTImageStorage, ExplicitVRLittleEndian)])
    for path in small("many contexts", folder):
        assert association.send_c_store(dcmread(path)).Status == 0
    association.release()


def every_item() -> list[Any]:
    """All that can be negotiated beside contexts (PS3.7 Annex D.3.3)."""
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked, window.maximum_number_operations_performed = 8, 8
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = CTImageStorage, True, True
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CTImageStorage, b"\2\0\0\0\0\0"
    user = UserIdentityNegotiation()
    user.user_identity_type, user.primary_field, user.secondary_field = 2, b"reader", b"secret"
    user.positive_response_requested = False
    return [window, role, extended, user]


def in_syntax(syntax: UID, folder: Path) -> Path:
    """Write an image in a transfer syntax; where it is a compressed one its pixels are bytes that nobody could decode, and nobody should."""
    image = phantoms.series(phantoms.marked((1, 24, 20)), seed=f"syntax {syntax}")[0]
    if syntax not in UNCOMPRESSED and syntax not in BY_REFERENCE:
        image.PixelData = encapsulate([bytes(range(256)) * 3, b"\xff\xd9" * 33])
        image["PixelData"].VR = "OB"
        image["PixelData"].is_undefined_length = True
    elif syntax == ExplicitVRBigEndian:
        image["PixelData"].VR = "OW"
    del image.file_meta  # it says another transfer syntax, and pydicom would hold this one against it
    content = BytesIO()
    dcmwrite(content, image, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "image.dcm"
    meta = file_meta(image.SOPClassUID, image.SOPInstanceUID, syntax, "", "")
    path.write_bytes(meta + (deflated(content.getvalue()) if syntax in DEFLATED else content.getvalue()))
    return path


def deflated(content: bytes) -> bytes:
    """Compress as PS3.5 A.5 says, with no header, to an even length."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(content) + packer.flush()
    return packed + b"\0" * (len(packed) % 2)


def push_one(path: Path, to: AE) -> None:
    """Send a file as it is."""
    pushed = push([path], to, calling_ae="CT_ER")
    assert not pushed.failed, pushed


def push_and_abort(to: AE, folder: Path) -> None:
    """Abort in the middle of the third image."""
    push(small("abort within", folder), to, calling_ae="CT_ER", abort_after=2)


def _renamed(seed: str, name: str) -> Callable[[str, Path], list[Path]]:
    """Return a maker of one compressed example under UIDs of its own, so that no two cases send the same."""

    def make(_: str, folder: Path) -> list[Path]:
        dataset = dcmread(FILES / name)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = derived_uid(seed, name)
        folder.mkdir(parents=True, exist_ok=True)
        dataset.save_as(folder / name)
        return [folder / name]

    return make


def _as_mr(seed: str, folder: Path) -> list[Path]:
    ct = small(seed, folder / "ct")
    mr = phantoms.write(phantoms.series(phantoms.marked((2, 24, 20)), modality="MR", seed=f"{seed} MR"), folder / "mr")
    return [ct[0], mr[0], ct[1], mr[1], ct[2]]


PDU_BYTES = (4096, 8192, 16384, 32768, 65536, 131072)
CASES: Mapping[str, Case] = {
    **{f"storescu, PDUs of {size}": dcmtk("storescu", "-R", "--max-send-pdu", str(size), images=large) for size in PDU_BYTES},
    **{f"storescu, receiving PDUs of {size}": dcmtk("storescu", "-R", "--max-pdu", str(size)) for size in (4096, 131072)},
    **{f"storescu, a receiver of PDUs of {size}": dcmtk("storescu", "-R", images=large, pdu_bytes=size) for size in (4096, 5001, 65535)},
    "storescu, all contexts it knows": dcmtk("storescu"),
    "storescu, contexts combined": dcmtk("storescu", "+C"),
    "storescu, implicit only": dcmtk("storescu", "-xi"),
    "storescu, big endian": dcmtk("storescu", "-xb", "-R"),
    "storescu, deflated": dcmtk("storescu", "-xd", "-R", "+C", images=large),
    "storescu, RLE": dcmtk("storescu", "-xr", "-R", images=_renamed("storescu", "MR_small_RLE.dcm"), stores=1),
    "storescu, JPEG": dcmtk("storescu", "-xy", "-R", images=_renamed("storescu", "SC_rgb_jpeg_dcmtk.dcm"), stores=1),
    "storescu, JPEG 2000": dcmtk("storescu", "-xw", "-R", images=_renamed("storescu", "JPEG2000.dcm"), stores=1),
    "storescu, two classes in turn": dcmtk("storescu", "-R", images=_as_mr, stores=5),
    "storescu, each image three times": dcmtk("storescu", "-R", "--repeat", "3"),
    "storescu, aborting at the end": dcmtk("storescu", "-R", "--abort"),
    "storescu, with a user's name": dcmtk("storescu", "-R", "--user", "reader", "--password", "secret"),
    "storescu, other instances": dcmtk("storescu", "-R", "--invent-instance", "--repeat", "2", stores=6),
    "dcmsend": dcmtk("dcmsend"),
    "dcmsend, PDUs of 4096": dcmtk("dcmsend", "--max-send-pdu", "4096", images=large),
    "dcmsend, two classes in turn": dcmtk("dcmsend", images=_as_mr, stores=5),
    "dcmsend, a receiver of PDUs of 4099": dcmtk("dcmsend", images=large, pdu_bytes=4099),
    "dcmsend, compressed as it is": Case(send=lambda to, _: program("dcmsend", "-dn", to=to, paths=files(*COMPRESSED)), stores=5),
    "echoscu": Case(send=lambda to, _: program("echoscu", to=to, paths=()), stores=0),
    "echoscu, many contexts": Case(send=lambda to, _: program("echoscu", "-ppc", "128", "--repeat", "5", to=to, paths=()), stores=0),
    "odil": Case(send=odil, stores=3),
    "PixelMed": Case(send=pixelmed, stores=1),
    **{f"pynetdicom, a receiver of PDUs of {size}": Case(send=pynetdicom(f"pdu {size}"), stores=3, pdu_bytes=size) for size in (130, 999)},
    **{
        f"pynetdicom, a receiver of PDUs of {size}": Case(send=pynetdicom(f"pdu {size}", images=large), stores=2, pdu_bytes=size)
        for size in (4096, 4097, 10007, 131071, 1 << 20)
    },
    "pynetdicom, taking PDUs of any length": Case(send=pynetdicom("unlimited", max_pdu_bytes=0), stores=3),
    "pynetdicom, an echo after each image": Case(send=pynetdicom("echo", echo=True), stores=3),
    "pynetdicom, everything negotiated": Case(send=pynetdicom("negotiated", items=every_item()), stores=3),
    "pynetdicom, aborting at the end": Case(send=pynetdicom("abort", end="abort"), stores=3),
    "pynetdicom, aborting within an image": Case(send=push_and_abort, stores=2),
    "pynetdicom, 128 contexts": Case(send=many_contexts, stores=3),
}
SYNTAXES: Mapping[str, Case] = {
    syntax.name: Case(send=lambda to, folder, syntax=syntax: push_one(in_syntax(syntax, folder), to), stores=1)
    for syntax in dict.fromkeys((*AllTransferSyntaxes, *BY_REFERENCE, PRIVATE_SYNTAX))
}
