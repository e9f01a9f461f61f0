"""What no real sender says, but the standard allows or forbids: conversations written by hand."""

from collections.abc import Callable
from io import BytesIO

from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.receive.header import split_file
from tests import phantoms
from tests.walks.pdus import (
    ABORT,
    C_CANCEL_RQ,
    C_FIND_RQ,
    C_STORE_RQ,
    COMMAND,
    CT_IMAGE,
    DATA_SET,
    EXPLICIT,
    IMPLICIT,
    LAST,
    N_EVENT_REPORT_RQ,
    NO_DATA_SET,
    RELEASE_RP,
    RELEASE_RQ,
    STUDY_ROOT_FIND,
    VERIFICATION,
    associate_rq,
    command,
    echo_rq,
    item,
    message,
    p_data,
    pdu,
    pdv,
    store_rq,
)
from tests.walks.recorded import End, Recording

USUAL = ((1, CT_IMAGE, (EXPLICIT,)), (3, VERIFICATION, (IMPLICIT,)), (5, STUDY_ROOT_FIND, (EXPLICIT,)))
REQUEST = associate_rq(USUAL)
FIRST = command(c0002=CT_IMAGE)[:3]


def image(seed: str, **attributes: object) -> tuple[str, bytes]:
    """Return a small image's SOP Instance UID and its data set in explicit VR little endian."""
    dataset = phantoms.series(phantoms.marked((1, 6, 4), (0, 0, 0)), seed=seed, **attributes)[0]
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    return str(dataset.SOPInstanceUID), file.getvalue()[split_file(file.getvalue())[1] :]


def fragments(content: bytes, size: int) -> list[bytes]:
    """Part bytes into fragments of one size; the last may be shorter."""
    return [content[start : start + size] for start in range(0, len(content), size)]


def split(context: int, control: int, content: bytes, size: int) -> list[bytes]:
    """Return the PDVs of a command set or a data set, the last marked so."""
    *most, last = fragments(content, size)
    return [*(pdv(context, control, one) for one in most), pdv(context, control | LAST, last)]


def talk(*said: tuple[int, bytes], answers: int, more: bytes = b"", contexts: tuple = USUAL) -> Recording:  # type: ignore[type-arg]
    """Associate, say something, release; the counts are of answers within the association."""
    last = answers + 1
    inner = [(heard + 1, content) for heard, content in said]
    return Recording.of((0, associate_rq(contexts, more=more)), *inner, (last, RELEASE_RQ), answers=last + 1)


def cut_off(*said: tuple[int, bytes], answers: int, end: End = End.CLOSED) -> Recording:
    """Associate, say something that ends the association, and hear so many PDUs more at the most."""
    return Recording.of((0, REQUEST), *((heard + 1, content) for heard, content in said), answers=answers + 1, end=end)


def one_image_as(name: str, form: Callable[[bytes, bytes], bytes]) -> Recording:
    """Send one image in a form: a function of its command set and its data set."""
    uid, content = image(name)
    return talk((0, form(store_rq(uid), content)), answers=1)


LEGAL_FORMS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "the command in fragments of one byte": lambda c, d: b"".join(p_data(one) for one in split(1, COMMAND, c, 1)) + p_data(pdv(1, LAST, d)),
    "the command over three PDUs": lambda c, d: b"".join(p_data(one) for one in split(1, COMMAND, c, 50)) + p_data(pdv(1, LAST, d)),
    "command and data in one PDU": lambda c, d: p_data(pdv(1, COMMAND | LAST, c), pdv(1, LAST, d)),
    "command and half of the data in one PDU": lambda c, d: p_data(pdv(1, COMMAND | LAST, c), pdv(1, 0, d[:99])) + p_data(pdv(1, LAST, d[99:])),
    "an empty last fragment": lambda c, d: message(1, c) + p_data(pdv(1, 0, d)) + p_data(pdv(1, LAST, b"")),
    "an empty last fragment of the command": lambda c, d: p_data(pdv(1, COMMAND, c), pdv(1, COMMAND | LAST, b"")) + p_data(pdv(1, LAST, d)),
    "empty fragments between": lambda c, d: (
        p_data(pdv(1, COMMAND, b""), pdv(1, COMMAND | LAST, c))
        + b"".join(p_data(pdv(1, 0, b"")) + p_data(pdv(1, 0, one)) for one in fragments(d, 100))
        + p_data(pdv(1, LAST, b""))
    ),
    "fragments of one byte, a PDU each": lambda c, d: message(1, c) + b"".join(p_data(one) for one in split(1, 0, d, 1)),
    "fragments of one byte in one PDU": lambda c, d: message(1, c) + p_data(*split(1, 0, d, 1)),
    "fragments of two bytes, with the command, in one PDU": lambda c, d: p_data(*split(1, COMMAND, c, 2), *split(1, 0, d, 2)),
    "seven PDVs a PDU": lambda c, d: (
        message(1, c) + b"".join(p_data(*split(1, 0, d, 13)[start : start + 7]) for start in range(0, len(split(1, 0, d, 13)), 7))
    ),
    "other bits set in the control header": lambda c, d: p_data(pdv(1, 0xFF, c)) + p_data(pdv(1, 0xFC, d[:50])) + p_data(pdv(1, 0xFE, d[50:])),
    "an odd reserved byte in the PDU": lambda c, d: b"\x04\xff" + message(1, c, d)[2:],
    "a data set cut within an element's header": lambda c, d: (
        message(1, c) + p_data(pdv(1, 0, d[:3]), pdv(1, 0, d[3:7])) + p_data(pdv(1, LAST, d[7:]))
    ),
}


def _commands() -> dict[str, Recording]:
    """Command sets of every kind: the message is the same, or is none."""
    made = {}
    for name, more in {
        "message 65535": {"c0110": 65535},
        "message 0": {"c0110": 0},
        "high priority": {"c0700": 1},
        "a move originator": {"c1030": "MOVER ", "c1031": 7},
        "an unknown element": {"c5555": "anything"},
        "a retired element": {"c5010": 2},
        "another data set type": {"c0800": 0x0102},
        "a UID with spaces": {"c1000": "SPACED"},
        "another class than the data's": {"c0002": "1.2.840.10008.5.1.4.1.1.4"},
        "another instance than the data's": {"c1000": "1.2.3.4"},
        "an instance that is no UID": {"c1000": "../../x"},
        "a class that is no UID": {"c0002": "not a UID"},
    }.items():
        uid, content = image(name)
        elements = {key: (uid + " " if value == "SPACED" else value) for key, value in more.items()}
        made[f"a C-STORE with {name}"] = talk((0, message(1, store_rq(uid, **elements), content)), answers=1)  # type: ignore[arg-type]
    return made


def store(seed: str, context: int = 1) -> bytes:
    """Return a C-STORE request with its image."""
    uid, content = image(seed)
    return message(context, store_rq(uid), content)


def eight(seed: str) -> bytes:
    """Return eight C-STORE requests, numbered from 1."""
    images = [image(f"{seed} {number}") for number in range(1, 9)]
    return b"".join(message(1, store_rq(uid, message=number), content) for number, (uid, content) in enumerate(images, 1))


def _several() -> dict[str, Recording]:
    """More than one message on an association."""
    echo = message(3, echo_rq(9))
    many = tuple((number, CT_IMAGE if number % 4 == 1 else f"1.2.3.{number}", (EXPLICIT,)) for number in range(1, 256, 2))
    window = item(0x53, b"\0\x08\0\x01")
    return {
        "C-ECHO before, between and after C-STORE": talk((0, echo), (1, store("echo")), (2, echo), (3, store("echo 2")), (4, echo), answers=5),
        "C-ECHO alone": talk((0, echo), answers=1),
        "C-ECHO in fragments of one byte": talk((0, b"".join(p_data(x) for x in split(3, COMMAND, echo_rq(), 1))), answers=1),
        "nothing at all": talk(answers=0),
        "128 contexts, the last and the first used": talk((0, store("last", 253) + store("first", 1)), answers=2, contexts=many),
        "the same image twice": talk((0, store("twice")), (1, store("twice")), answers=2),
        "eight images without waiting": talk((0, eight("at once")), answers=8),
        "eight images without waiting, in a window that was asked for": talk((0, eight("window")), answers=8, more=window),
        "images and echoes without waiting": talk((0, store("mixed") + echo + store("mixed 2") + echo), answers=4),
        "released straight after the last fragment": Recording.of((0, REQUEST), (1, store("released") + RELEASE_RQ), answers=3),
    }


def _data() -> dict[str, Recording]:
    """Data sets of every kind."""
    made = {}
    for name, data in {
        "an odd length": lambda content: content[:-1],
        "one byte": lambda _: b"\x08",
        "no bytes": lambda _: b"",
        "the end cut off": lambda content: content[:200],
        "a page of the web": lambda _: b"<!DOCTYPE html><html></html>",
        "bytes after the image": lambda content: content + b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0abcd",
    }.items():
        uid, content = image(name)
        made[f"a data set of {name}"] = talk((0, message(1, store_rq(uid), data(content))), answers=1)
    odd = image("data without a study", StudyInstanceUID=None)
    made["a data set without a study"] = talk((0, message(1, store_rq(odd[0]), odd[1])), answers=1)
    return made


def _refused() -> dict[str, Recording]:
    """Requests to associate of which nothing, or not everything, is accepted."""
    find = ((1, STUDY_ROOT_FIND, (IMPLICIT,)),)
    return {
        "a wrong called title": Recording.of((0, associate_rq(USUAL, called_ae="OTHER")), answers=1),
        "no context that is accepted": Recording.of((0, associate_rq(find)), (1, RELEASE_RQ), answers=2),
        "a class of the site's own": talk((0, store("own class", 7)), answers=1, contexts=((7, "1.3.6.1.4.1.55555.7", (EXPLICIT,)),)),
        "a transfer syntax of the site's own": talk((0, store("own syntax")), answers=1, contexts=((1, CT_IMAGE, ("1.2.3.4.5",)),)),
    }


def _odd() -> dict[str, Recording]:
    """What makes little sense, and is answered or passed over."""
    answer = command(c0002=CT_IMAGE, c0100=0x8001, c0120=1, c0800=NO_DATA_SET, c0900=0)
    nameless = command(c0002=CT_IMAGE, c0100=C_STORE_RQ, c0110=1, c0700=0, c0800=DATA_SET)
    cancel = command(c0100=C_CANCEL_RQ, c0120=4, c0800=NO_DATA_SET)
    return {
        "a C-STORE without a data set": talk((0, message(1, store_rq("1.2.3.4.5", c0800=NO_DATA_SET))), answers=1),
        "a cancel of nothing": talk((0, message(3, cancel) + message(3, echo_rq())), answers=1),
        "a C-STORE without an instance": talk((0, message(1, nameless, b"anything")), answers=0),
        "a C-STORE with an empty instance": talk((0, message(1, store_rq(""), b"anything")), answers=0),
        "an answer instead of a request": talk((0, message(1, answer)), answers=0),
        "a C-STORE on the context of C-ECHO": talk((0, store("echo's context", 3)), answers=1),
        "a C-ECHO on the context of images": talk((0, message(1, echo_rq())), answers=1),
        "a release of the wrong length": Recording.of((0, REQUEST), (1, b"\x05\0\0\0\0\x02\0\0"), answers=2),
    }


def _wrong() -> dict[str, Recording]:
    """What ends an association: whatever the server says to it, it hangs up."""
    uid, content = image("wrong")
    rq, data = store_rq(uid), p_data(pdv(1, LAST, content))
    return {
        name: cut_off((0, said), answers=2)
        for name, said in {
            "C-FIND on a context that was refused": message(5, command(c0002=STUDY_ROOT_FIND, c0100=C_FIND_RQ, c0110=1, c0700=0, c0800=1), content),
            "C-STORE on a context that was refused": message(5, rq, content),
            "C-STORE on a context that was not proposed": message(99, rq, content),
            "an unknown command": message(1, command(c0002=CT_IMAGE, c0100=0x7777, c0110=1, c0800=NO_DATA_SET)),
            "a command without its number": message(1, command(c0002=CT_IMAGE, c0110=1, c0800=NO_DATA_SET)),
            "an empty command": message(1, b""),
            "half an element for a command": message(1, FIRST),
            "an item that is longer than its PDU": pdu(4, b"\0\0\x7f\xff\x01\x03" + rq),
            "an item without a control header": pdu(4, b"\0\0\0\x01\x01"),
            "an item of length zero": pdu(4, b"\0\0\0\0"),
            "half an item": pdu(4, b"\0\0\0"),
            "an unknown PDU": pdu(8, b"\0\0\0\0"),
            "a second request to associate": REQUEST,
            "an acceptance": pdu(2, REQUEST[6:]),
            "a rejection": b"\x03\0\0\0\0\x04\0\1\1\1",
            "a release response": RELEASE_RP,
            "an abort": ABORT,
            "an abort within an image": message(1, rq) + p_data(pdv(1, 0, content[:100])) + ABORT,
            "an abort straight after an image's command": message(1, rq) + ABORT,
            "a longer PDU than agreed": b"\x04\0\x00\x20\0\0" + bytes(64),
        }.items()
    } | {
        "a request to associate of half a PDU": Recording.of((0, REQUEST[:50]), answers=0),
        "a data set before its command": cut_off((0, data), answers=1),
        "an abort instead of a request": Recording.of((0, ABORT), answers=0),
        "an N-EVENT-REPORT": cut_off(
            (0, message(1, command(c0002=CT_IMAGE, c0100=N_EVENT_REPORT_RQ, c0110=1, c0800=NO_DATA_SET, c1000=uid, c1002=1))), answers=1
        ),
    }


ALLOWED: dict[str, Recording] = {
    **{name: one_image_as(name, form) for name, form in LEGAL_FORMS.items()},
    **_commands(),
    **_several(),
    **_data(),
    **_refused(),
    **_odd(),
}
WRONG = _wrong()
