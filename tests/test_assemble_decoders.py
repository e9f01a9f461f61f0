"""A decoder that dies or is silent takes down only its own process; several threads and processes give what one would."""

import os
import signal
import textwrap

import highdicom as hd
import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from dicom_node.assemble.volume import assemble
from dicom_node.coding import decoders
from dicom_node.coding.decoders import DECODERS, Coded, Decoders
from dicom_node.config import Input
from dicom_node.domain import Unsuitable
from tests import phantoms
from tests.assembling import HU, put_together, reason

ENCODERS = {RLELossless: "pylibjpeg", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}
REFUSED = "image 5 cannot be decoded"

# Stands in for decode.py: values are the coded byte, "die" kills it, "once" kills it unless the file named behind it is there, "silent" waits.
PROGRAM = """
import json, mmap, os, pathlib, signal, sys
from multiprocessing.connection import Connection
channel, memory = Connection(int(sys.argv[1])), mmap.mmap(int(sys.argv[2]), 0)
while True:
    try:
        asked = json.loads(channel.recv_bytes())
    except EOFError:
        break
    word, _, rest = memory[asked["at"] : asked["at"] + asked["size"]].partition(b" ")
    if word == b"silent":
        signal.pause()
    if word == b"die" or (word == b"once" and not os.path.exists(rest)):
        pathlib.Path(os.fsdecode(rest or b"/dev/null")).touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == b"lie":
        channel.send_bytes(b"<f8")
        continue
    memory[asked["to"] : asked["to"] + 4] = bytes([asked["size"] % 256] * 4)
    channel.send_bytes(b"|u1")
"""


@pytest.fixture
def small(tmp_path):
    """Return decoders that run a small program."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    made = Decoders(tmp_path / "program.py")
    yield made
    made.close()


def decoded(those, words):
    """Return what the decoders made of some words, by their place."""
    taken = {}

    def frame(number, word):
        return Coded(
            data=word,
            rows=2,
            columns=2,
            transfer_syntax_uid=RLELossless,
            plugins=(),
            options={},
            refused=Unsuitable(f"image {number} cannot be decoded"),
            take=lambda values: taken.__setitem__(number, int(values[0, 0])),
        )

    those.decode((frame(number, word) for number, word in enumerate(words)), count=len(words), frame_bytes=4, coded_bytes=4096)
    return [taken[number] for number in sorted(taken)]


def test_frames_come_back_to_their_own_places(small):
    words = [b"x" * (number % 200 + 1) for number in range(300)]
    assert decoded(small, words) == [len(word) for word in words]


def test_a_decoder_that_dies_is_replaced_and_nothing_is_lost(small, tmp_path):
    words = [b"x" * (number + 1) for number in range(40)]
    words[7] = b"once " + os.fsencode(tmp_path / "died")
    assert decoded(small, words) == [len(word) for word in words]
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("word", [b"die", b"lie", b"x" * 5000])
def test_a_frame_that_kills_its_decoder_twice_or_is_answered_with_nonsense_is_refused_and_the_next_round_goes_on(small, word):
    words = [b"x"] * 40
    words[5], words[23] = word, word
    for _ in range(3):
        with pytest.raises(Unsuitable, match=REFUSED):
            decoded(small, words)
    assert decoded(small, [b"xyz"] * 20) == [3] * 20


def test_a_decoder_that_never_answers_is_not_waited_for_without_end(small, monkeypatch):
    monkeypatch.setattr(decoders, "_PATIENCE_S", 0.3)
    with pytest.raises(Unsuitable, match=REFUSED):
        decoded(small, [b"x"] * 5 + [b"silent"] + [b"x"] * 5)


def test_what_the_taker_raises_ends_the_round_and_the_processes_that_are_in_the_midst_of_it(small):
    def frames():
        yield from ()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small.decode(frames(), count=20, frame_bytes=4, coded_bytes=10)
    assert small.pids == ()
    assert decoded(small, [b"x"]) == [1]


def test_a_decoder_that_was_killed_between_two_series_is_not_missed(tmp_path):
    images = phantoms.series(phantoms.marked((6, 40, 36)))
    for image in images:
        image.compress(JPEGLSLossless, encoding_plugin="pyjpegls", generate_instance_uid=False)
    first = put_together(images, tmp_path)
    for pid in DECODERS.pids:
        os.kill(pid, signal.SIGKILL)
    again = put_together(images, tmp_path)
    assert np.array_equal(first.volume.array, again.volume.array)


@pytest.mark.parametrize("orientation", list(phantoms.ORIENTATIONS))
@pytest.mark.parametrize("transfer_syntax_uid", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, *ENCODERS])
@pytest.mark.parametrize("rescale", [(1, -1024), (2, 7), (0.37, -3.25)])
def test_the_volume_is_highdicoms_in_every_encoding_and_orientation(transfer_syntax_uid, orientation, rescale, tmp_path):
    """Geometry to the last bit, values exactly, rounded to float32 once."""
    images = phantoms.series(phantoms.marked((6, 40, 36)), orientation=orientation, rescale=rescale)
    for image in images:
        if transfer_syntax_uid in ENCODERS:
            image.compress(transfer_syntax_uid, encoding_plugin=ENCODERS[transfer_syntax_uid], generate_instance_uid=False)
        image.file_meta.TransferSyntaxUID = transfer_syntax_uid
    volume = put_together(images[::-1], tmp_path).volume
    expected = hd.get_volume_from_series(images, apply_modality_transform=True)
    assert np.array_equal(volume.affine, expected.affine)
    assert volume.frame_of_reference_uid == expected.frame_of_reference_uid
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, expected.array.astype(np.float32))


@pytest.mark.parametrize("make", [phantoms.series, lambda array: [phantoms.enhanced(array)]])
def test_slices_that_several_threads_read_are_in_their_places(make, tmp_path):
    stored = np.random.default_rng(3).integers(-1000, 3000, (20, 512, 512)).astype(np.int16)
    array = put_together(make(stored), tmp_path).volume.array
    assert np.array_equal(array, stored[::-1] - np.float32(1024))


def test_of_several_broken_files_the_first_is_named_however_many_threads_read(tmp_path):
    paths = phantoms.write(phantoms.series(np.zeros((20, 512, 512), np.int16), BitsAllocated=16), tmp_path)
    for number in (18, 6, 11):
        content = paths[number].read_bytes()
        paths[number].write_bytes(content[: -2 * 512 * 512 - 4] + (2**30).to_bytes(4, "little") + content[-2 * 512 * 512 : -10])
    for _ in range(3):
        with pytest.raises(Unsuitable, match="is cut short"):
            assemble(paths, HU)


# ------------------------------------------------------------------------------------------------------ whole numbers


@pytest.mark.parametrize("rescale", [(1, -1024), (1, 0), (-3, 5), (0.5, 0)])
def test_values_are_kept_as_whole_numbers_where_the_model_asks_for_them(rescale, tmp_path):
    stored = phantoms.marked() // 2 * 2
    array = put_together(phantoms.series(stored, rescale=rescale), tmp_path, Input(units="HU", dtype="int16")).volume.array
    assert array.dtype == np.int16
    assert np.array_equal(array[::-1], stored * rescale[0] + rescale[1])


@pytest.mark.parametrize("rescale", [(1, 32000), (1, -32768 - 25), (0.5, 0.25), (40, 0)])
def test_values_that_do_not_fit_are_refused(rescale, tmp_path):
    images = phantoms.series(phantoms.marked(), rescale=rescale)
    said = reason(images, tmp_path, Input(units="HU", dtype="int16"))
    assert "are not whole numbers of 16 bits, which the model asks for" in said


def test_missing_slices_are_interpolated_to_whole_numbers(tmp_path):
    images = phantoms.series(phantoms.marked((8, 6, 4), (5, 0, 0), ground=25))
    wanted = Input(units="HU", dtype="int16", allow_gaps=True)
    array = put_together([*images[:3], *images[4:]], tmp_path, wanted).volume.array
    assert array.dtype == np.int16
    assert abs(int(array[4, 0, 0]) * 2 - int(array[3, 0, 0]) - int(array[5, 0, 0])) <= 1
