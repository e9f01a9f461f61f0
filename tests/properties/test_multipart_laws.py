"""The streaming multipart reader against one that has all in memory: whatever the pieces are, both read the same (RFC 2046 5.1)."""

import re
from email.parser import BytesParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dicom_node.wire.multipart import HEADER_BYTES, Begun, Ended, Malformed, Reader, content_type

BOUNDARY = "b-1"
# What looks like a delimiter, or its beginning, among other bytes.
_SHARD = st.one_of(
    st.sampled_from(
        [b"\r\n", b"\r", b"\n", b"--", b"-", b"b-1", b"\r\n--b-1", b"--b-1\r\n", b"\r\n--b-1--", b" ", b"\t", b"A: 1", b":", b"\r\n--b-12"]
    ),
    st.binary(max_size=5),
)
_BODY = st.lists(_SHARD, max_size=6).map(b"".join)
_HEADER = st.lists(st.sampled_from([b"Content-Type: application/dicom\r\n", b"Content-ID: <1>\r\n", b"X: a\r\n b\r\n"]), max_size=2).map(b"".join)

Parts = list[tuple[dict[str, str], bytes]]


def in_memory(payload: bytes) -> Parts | None:
    """Read a payload whole; None where it is malformed."""
    delimiter = re.compile(rb"\r\n--b-1(?:(--)|[ \t]{0,127}\r\n)")
    parts: Parts = []
    whole, at = b"\r\n" + payload, 0
    found = delimiter.search(whole)
    while found is not None and not found[1]:
        at = found.end()
        blank = at if whole[at : at + 2] == b"\r\n" else whole.find(b"\r\n\r\n", at) + 2
        if blank < at:
            return None
        lines = re.sub(rb"\r\n[ \t]+", b" ", whole[at:blank]).split(b"\r\n")
        if not all(re.fullmatch(rb"\s*[!#$%&'*+.^_`|~0-9A-Za-z-]+\s*:.*", line, re.DOTALL) for line in lines if line):
            return None
        found = delimiter.search(whole, blank)
        if found is None:
            return None
        fields = [line.decode("latin-1").partition(":") for line in lines if line]
        parts.append(({name.strip().lower(): value.strip() for name, _, value in reversed(fields)}, whole[blank + 2 : found.start()]))
    return None if found is None else parts


def streamed(payload: bytes, cuts: list[int]) -> Parts | None:
    """Read a payload in pieces; None where it is malformed."""
    reader, parts, bounds = Reader(BOUNDARY), [], [0, *sorted(min(one, len(payload)) for one in cuts), len(payload)]
    try:
        for start, end in zip(bounds, bounds[1:], strict=False):
            for event in reader.feed(payload[start:end]):
                if isinstance(event, Begun):
                    parts.append((dict(event.headers), b""))
                elif not isinstance(event, Ended):
                    parts[-1] = parts[-1][0], parts[-1][1] + bytes(event)
        reader.finish()
    except Malformed:
        return None
    return parts


_CUTS = st.lists(st.integers(0, 200), max_size=8)


@given(st.lists(_SHARD, max_size=14).map(b"".join), _CUTS)
@example(b"--b-1\r\n\r\n--b-1--", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13])
@example(b"--b-1\r\nA: 1\r\n\r\n--b-1--", [*range(24)])
@example(b"--b-1\r\n\r\n\r\n--b-1--", [*range(24)])
@example(b"--b-1\r\nX:\r\n\r\nx\r\n--b-1-\r\n--b-1--", [*range(40)])
def test_anything_is_read_the_same_in_pieces_and_whole(payload: bytes, cuts: list[int]) -> None:
    """Junk, too."""
    assert streamed(payload, cuts) == in_memory(payload) == streamed(payload, [*range(len(payload))])


@given(st.lists(st.tuples(_HEADER, _BODY), max_size=4), _CUTS, st.binary(max_size=9), st.sampled_from([b"", b"\r\n", b"\r\nlast words"]))
def test_what_was_written_is_read(parts: list[tuple[bytes, bytes]], cuts: list[int], preamble: bytes, epilogue: bytes) -> None:
    """Bodies that hold no delimiter come out as they went in."""
    inside = [(head, body) for head, body in parts if not re.search(rb"\r\n--b-1(--|[ \t]*\r\n|[ \t]*\Z|-\Z|[ \t]*\r\Z)", b"\r\n" + body + b"\r\n")]
    payload = b"".join(b"\r\n--b-1 \r\n" + head + b"\r\n" + body for head, body in inside) + b"\r\n--b-1--" + epilogue
    begin = preamble.replace(b"-", b"")
    read = streamed(begin + payload, cuts)
    assert read is not None and [body for _, body in read] == [body for _, body in inside]
    for (fields, _), (head, _) in zip(read, inside, strict=True):
        expected = BytesParser().parsebytes(head + b"\r\n", headersonly=True)
        assert {name: re.sub(r"\s+", " ", value) for name, value in fields.items()} == {
            name.lower(): re.sub(r"\s+", " ", value) for name, value in reversed(expected.items())
        }


@pytest.mark.parametrize("boundary", ["", "x" * 71, "ends with a blank ", "line\r\nbreak", "ü"])
def test_a_boundary_that_is_none_is_refused(boundary: str) -> None:
    """RFC 2046 5.1.1: 1 to 70 characters, the last no blank."""
    with pytest.raises(Malformed):
        Reader(boundary)


def test_a_header_that_never_ends_is_not_gathered() -> None:
    """Nor are more parts than there may be."""
    reader = Reader(BOUNDARY)
    [*reader.feed(b"--b-1\r\nX: ")]
    with pytest.raises(Malformed, match="too long"):
        for _ in range(HEADER_BYTES):
            [*reader.feed(b"x" * 100)]
    with pytest.raises(Malformed, match="too many parts"):
        for _ in range(60):
            [*(many := Reader(BOUNDARY)).feed(b"--b-1\r\n\r\n" * 1_000 * 60)]
    assert many is not None


def test_what_is_kept_between_pieces_is_short() -> None:
    """A part of any length is read in flat memory."""
    reader = Reader(BOUNDARY)
    [*reader.feed(b"--b-1\r\n\r\n")]
    for _ in range(50):
        [data] = reader.feed(b"\r\n--b-" + bytes(1_000))
        assert len(reader._left) < 16 and len(data) > 980


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('multipart/related; type="application/dicom"; boundary="a b"', ("multipart/related", {"type": "application/dicom", "boundary": "a b"})),
        ("Multipart/Related;boundary=x;TYPE=application/dicom", ("multipart/related", {"type": "application/dicom", "boundary": "x"})),
        (r'multipart/related; boundary="a\"b"; x', ("multipart/related", {"boundary": 'a"b'})),
        ("", ("", {})),
        (";;=;", ("", {})),
    ],
)
def test_a_content_type_is_read_quoted_or_not(text: str, meant: tuple[str, dict[str, str]]) -> None:
    """RFC 9110 8.3.1."""
    assert content_type(text) == meant
