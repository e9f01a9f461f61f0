"""Streams of PDUs that no sender says, made of those that senders say: each is a function of its random source alone.

A stream is a list of PDUs that are taken apart, so that lengths, types, contexts, control headers and the elements of command sets can be made wrong
each for itself, and what is around them stays right: bytes that are wrong anyhow end at the first header.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from random import Random

from tests.walks.pdus import ABORT, COMMAND, CT_IMAGE, EXPLICIT, IMPLICIT, LAST, RELEASE_RQ, VERIFICATION, command, echo_rq, store_rq
from tests.walks.recorded import pdus
from tests.walks.scripts import ALLOWED, WRONG, image

CONTEXTS = ((1, CT_IMAGE, (EXPLICIT,)), (3, VERIFICATION, (IMPLICIT,)), (5, CT_IMAGE, (IMPLICIT,)), (7, CT_IMAGE, ("1.2.840.10008.1.2.1.99",)))

_P_DATA = 4
_LENGTHS = (0, 1, 2, 3, 5, 1 << 14, (1 << 16) - 1, 1 << 20, (1 << 20) + 1, (1 << 31) - 1, (1 << 32) - 1)
_SHORT_LENGTHS = (0, 1, 2, 3, 6, 0x7FFF, 0xFFFF, 1 << 20, (1 << 32) - 1)
_IMAGES = 24
_MOST_PDUS = 150  # of a script that is taken for a seed
_SCRAPS = (
    b"\0",
    b"\xff\xff\xff\xff",
    b"\x08\0\x05\0",
    b"\xfe\xff\0\xe0\xff\xff\xff\xff",
    b"SQ\0\0\xff\xff\xff\xff",
    b"UN\0\0",
    b"ISO 2022 IR 87",
    b"\x1b$B",
)


@dataclass(slots=True)
class Pdv:
    """A presentation data value item; its length is what it is, unless another is said."""

    context: int
    control: int
    data: bytes
    length: int | None = None

    def __bytes__(self) -> bytes:
        length = len(self.data) + 2 if self.length is None else self.length
        return struct.pack(">IBB", length & 0xFFFFFFFF, self.context, self.control) + self.data


@dataclass(slots=True)
class Pdu:
    """A PDU: of items if it is a P-DATA-TF, else of content; its length is what it is, unless another is said."""

    kind: int = _P_DATA
    items: list[Pdv] = field(default_factory=list)
    content: bytes = b""
    length: int | None = None
    reserved: int = 0

    def __bytes__(self) -> bytes:
        body = b"".join(map(bytes, self.items)) + self.content
        return struct.pack(">BBI", self.kind, self.reserved, len(body) if self.length is None else self.length) + body


Stream = list[Pdu]


def mutant(random: Random) -> bytes:
    """Return what a client says on an association of CONTEXTS: in one of six cases nothing is wrong with it."""
    stream = conversation(random)
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        random.choice(_MUTATIONS)(random, stream)
    said = b"".join(map(bytes, stream))
    return damaged(random, said) if random.random() < 0.15 else said


def conversation(random: Random) -> Stream:
    """Return some messages that follow each other, in fragments of some size, and perhaps an end."""
    said: Stream = []
    for _ in range(random.choice((1, 2, 3, 5))):
        said += _message(random)
    end = random.choice((b"", b"", b"", RELEASE_RQ, ABORT))
    return said + apart(end)


def apart(content: bytes) -> Stream:
    """Take PDUs apart; what is none stays as it is."""
    return [_taken(pdu) for pdu in pdus(content)]


def _taken(pdu: bytes) -> Pdu:
    kind, reserved, length = struct.unpack(">BBI", pdu[:6]) if len(pdu) >= 6 else (0, 0, 0)
    taken = Pdu(kind=kind, reserved=reserved, length=None if length == len(pdu) - 6 else length)
    at = 6
    while kind == _P_DATA and len(pdu) - at >= 6:
        size, context, control = struct.unpack_from(">IBB", pdu, at)
        if not 2 <= size <= len(pdu) - at - 4:
            break
        taken.items.append(Pdv(context, control, pdu[at + 6 : at + 4 + size]))
        at += 4 + size
    taken.content = pdu[at:]
    return taken


@cache
def _image(number: int) -> tuple[str, bytes]:
    return image(f"mutant {number}")


@cache
def _scripts() -> tuple[bytes, ...]:
    """Return what is said on an association, of every conversation that was written by hand."""
    said = [b"".join(pdus(b"".join(turn.content for turn in script.turns))[1:]) for script in (*ALLOWED.values(), *WRONG.values())]
    return tuple(content for content in said if len(pdus(content)) <= _MOST_PDUS)


def _message(random: Random) -> Stream:
    kind = random.random()
    if kind < 0.15:
        return apart(random.choice(_scripts()))
    if kind < 0.25:
        return _fragments(random, 3, echo_rq(random.randrange(1 << 16)), None)
    uid, content = _image(random.randrange(_IMAGES))
    context = random.choice((1, 1, 1, 1, 5, 7))
    return _fragments(random, context, store_rq(uid, message=random.randrange(1 << 16)), content)


def _fragments(random: Random, context: int, command_set: bytes, data_set: bytes | None) -> Stream:
    """Part a message into items, and these into PDUs."""
    items = _parted(context, COMMAND, command_set, random.choice((20, 1000, 1000, 1000)))
    if data_set is not None:
        items += _parted(context, 0, data_set, random.choice((25, 50, 100, 100, 300, 2000)))
    several = random.choice((1, 1, 1, 2, 5))
    return [Pdu(items=items[at : at + several]) for at in range(0, len(items), several)]


def _parted(context: int, control: int, content: bytes, size: int) -> list[Pdv]:
    parts = [content[at : at + size] for at in range(0, len(content), size)] or [b""]
    return [Pdv(context, control | (LAST if number == len(parts) else 0), part) for number, part in enumerate(parts, 1)]


# ------------------------------------------------------------------------------------------------------------ mutations

Mutation = Callable[[Random, Stream], None]


def _place(random: Random, stream: Stream) -> int:
    return random.randrange(len(stream)) if stream else 0


def _item(random: Random, stream: Stream) -> Pdv:
    """Choose an item; one that nobody sees where there is none."""
    items = [item for pdu in stream for item in pdu.items]
    return random.choice(items) if items else Pdv(1, 0, b"")


def _drop(random: Random, stream: Stream) -> None:
    start = _place(random, stream)
    del stream[start : start + random.choice((1, 1, 3))]


def _repeat(random: Random, stream: Stream) -> None:
    start = _place(random, stream)
    stream[start:start] = stream[start : start + random.choice((1, 1, 2, 8))] * random.choice((1, 1, 2, 20))


def _swap(random: Random, stream: Stream) -> None:
    one, other = _place(random, stream), _place(random, stream)
    if stream:
        stream[one], stream[other] = stream[other], stream[one]


def _cut(random: Random, stream: Stream) -> None:
    del stream[_place(random, stream) :]


def _splice(random: Random, stream: Stream) -> None:
    other = conversation(random)
    stream[_place(random, stream) :] = other[_place(random, other) :]


def _interleave(random: Random, stream: Stream) -> None:
    for pdu in _message(random):
        stream.insert(_place(random, stream), pdu)


def _insert(random: Random, stream: Stream) -> None:
    raw = random.choice(
        (
            RELEASE_RQ,
            ABORT,
            b"\x04\0\0\0\0\0",
            b"\x01\0\0\0\0\x04\0\1\0\0",
            b"\x06\0\0\0\0\x04\0\0\0\0",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x08\0\0\0\0\x02\0\0",
        )
    )
    stream.insert(_place(random, stream), Pdu(kind=raw[0], reserved=raw[1], length=int.from_bytes(raw[2:6], "big"), content=raw[6:]))


def _relength(random: Random, stream: Stream) -> None:
    if stream:
        pdu = random.choice(stream)
        pdu.length = max(len(bytes(pdu)) - 6 + random.choice((-7, -1, 1, 6)), 0) if random.random() < 0.5 else random.choice(_LENGTHS)


def _retype(random: Random, stream: Stream) -> None:
    if stream:
        random.choice(stream).kind = random.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 0x84, 255))


def _recontext(random: Random, stream: Stream) -> None:
    _item(random, stream).context = random.choice((0, 1, 2, 3, 5, 7, 9, 99, 255))


def _recontrol(random: Random, stream: Stream) -> None:
    _item(random, stream).control ^= random.choice((1, 2, 3, 4, 0x80, 0xFC))


def _relength_item(random: Random, stream: Stream) -> None:
    item = _item(random, stream)
    item.length = len(item.data) + 2 + random.choice((-3, -1, 1, 4)) if random.random() < 0.5 else random.choice(_SHORT_LENGTHS)


def _empty_items(random: Random, stream: Stream) -> None:
    for pdu in random.sample(stream, min(len(stream), 5)):
        pdu.items = [one for item in pdu.items for one in (Pdv(item.context, item.control & ~LAST, b""), item)]


def _pad(random: Random, stream: Stream) -> None:
    if stream:
        random.choice(stream).content += random.choice(_SCRAPS) * random.choice((1, 1, 3))


def _data(random: Random, stream: Stream) -> None:
    """Let bytes of a data set, most often those of its header, be others."""
    items = [item for pdu in stream for item in pdu.items if not item.control & COMMAND]
    if items:
        item = random.choice(items[:4] or items)
        item.data = damaged(random, item.data)


def _longer(random: Random, stream: Stream) -> None:
    """Let a fragment be longer than any that was agreed to, and within what is read."""
    item = _item(random, stream)
    item.data = (item.data or b"\0") * random.choice((2, 50, 1000))
    item.data = item.data[: (1 << 20) - 64]


def _elements(random: Random, stream: Stream) -> None:
    """Let the elements of a command set be other, fewer, more, or in another order."""
    whole = [item for pdu in stream for item in pdu.items if item.control & 3 == COMMAND | LAST]
    if not whole:
        return
    item = random.choice(whole)
    elements = _apart(item.data)
    for _ in range(random.choice((1, 1, 2))):
        random.choice(_IN_COMMANDS)(random, elements)
    item.data = b"".join(struct.pack("<HHI", group, number, length) + value for group, number, length, value in elements)


Element = tuple[int, int, int, bytes]  # group, number, the length that is said, value


def _apart(command_set: bytes) -> list[Element]:
    elements, at = [], 0
    while len(command_set) - at >= 8:
        group, number, length = struct.unpack_from("<HHI", command_set, at)
        value = command_set[at + 8 : at + 8 + length]
        elements.append((group, number, length, value))
        at += 8 + len(value)
    return elements


def _other_element(random: Random, elements: list[Element]) -> None:
    at = random.randrange(len(elements) or 1)
    group, number, length, value = elements[at] if elements else (0, 0, 0, b"")
    choice = random.randrange(7)
    if choice == 0:
        group = random.choice((2, 8, 0xFFFE, 0xFFFF))
    elif choice == 1:
        number = random.choice((0, 0x0002, 0x0003, 0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x1000, 0x1030, 0xFFFF))
    elif choice == 2:
        length = random.choice((0, 1, 3, length + 2, 0xFFFF, 0xFFFFFFFF))
    elif choice == 3:
        value = random.choice((b"", b"\0", b"\1\1", b"\xff\xff", b"\1\0\0\0", b"1.2.3\0", b"\\", b"1.2\\3.4 ", b"\xe4\xf6", b"../../x ", b"9" * 66))
        length = len(value)
    elif choice == 4:
        value = (value or b"1.") * random.choice((40, 9000))
        length = len(value)
    elif choice == 5 and number in (0x0100, 0x0800):
        value = struct.pack(
            "<H", random.choice((0, 1, 2, 0x10, 0x20, 0x21, 0x30, 0x100, 0x101, 0x102, 0x110, 0x120, 0x150, 0xFFF, 0x8001, 0x8030, 0xFFFF))
        )
    else:
        value = damaged(random, value)
    elements[at : at + 1] = [(group, number, length, value)]


def _drop_element(random: Random, elements: list[Element]) -> None:
    if elements:
        del elements[random.randrange(len(elements))]


def _repeat_element(random: Random, elements: list[Element]) -> None:
    if elements:
        elements.insert(random.randrange(len(elements)), random.choice(elements))


def _another_command(random: Random, elements: list[Element]) -> None:
    """Let it be a command of another kind (PS3.7 Table E.1-1)."""
    kind = random.choice((0x0010, 0x0020, 0x0021, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150, 0x0FFF, 0x8001, 0x8020, 0x8030, 0x7777))
    elements[:] = _apart(
        command(c0002=CT_IMAGE, c0003=CT_IMAGE, c0100=kind, c0110=1, c0120=1, c0800=random.choice((1, 0x0101)), c0900=0, c1000="1.2.3", c1001="1.2")
    )


_IN_COMMANDS = (_other_element, _other_element, _other_element, _drop_element, _repeat_element, _another_command)
_MUTATIONS: tuple[Mutation, ...] = (
    *(_drop, _repeat, _swap, _cut, _splice, _interleave, _insert, _relength, _retype, _recontext, _recontrol, _relength_item, _empty_items, _pad),
    *(_data, _data, _data, _longer, _elements, _elements, _elements),
)


def damaged(random: Random, content: bytes) -> bytes:
    """Overwrite, insert, repeat or cut off some bytes."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(data) + 1)
        how = random.randrange(5)
        if how == 0:
            data[at : at + 1] = bytes((random.randrange(256),))
        elif how == 1:
            piece = random.choice(_SCRAPS)
            data[at : at + len(piece)] = piece
        elif how == 2:
            data[at:at] = random.choice(_SCRAPS)
        elif how == 3:
            data[at:at] = data[at : at + random.randrange(64)]
        else:
            del data[at : at + random.choice((1, 2, 8, 1 << 20))]
    return bytes(data)
