"""convert_imageset and compute_image_mean: what is refused, skipped, shuffled and counted."""

import logging
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.run_tool import run_tool

from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseReader, DatabaseWriter, datum_from_image
from pipeline.caffe.proto.blob_proto import read_mean
from pipeline.caffe.proto.caffe_pb2 import Datum

IMAGES = {f"{number}.png": np.full((3, 4), 10 * number, np.uint8) for number in range(6)}


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A folder of six images, and their list beside it."""
    (tmp_path / "images").mkdir()
    for name, image in IMAGES.items():
        cv2.imwrite(str(tmp_path / "images" / name), image)
    write_list(tmp_path, "".join(f"{name} {label}\n" for label, name in enumerate(IMAGES)))
    return f"{tmp_path}/images/"


def write_list(folder: Path, lines: str) -> None:
    (folder / "list.txt").write_text(lines)


def convert(root: str, *flags: str, folder: Path) -> list[tuple[str, int]]:
    """Convert the folder's list; keys and labels of the database."""
    run_tool("convert_imageset", *flags, root, folder / "list.txt", folder / "lmdb")
    with DatabaseReader(folder / "lmdb") as database:
        return [(key.decode(), datum.label) for key, datum in database]


def test_what_cannot_be_read_is_told_and_leaves_its_number_out(
    root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path(root, "1.png").write_bytes(b"no picture")
    Path(root, "3.png").unlink()
    with caplog.at_level("INFO", logger="pipeline"):
        records = convert(root, folder=tmp_path)
    assert records == [("00000000_0.png", 0), ("00000002_2.png", 2), ("00000004_4.png", 4), ("00000005_5.png", 5)]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [message[: message.index(".png") + 5] for message in told[:2]] == [
        f"Could not open or find file {root}1.png:",
        f"Could not open or find file {root}3.png:",
    ]
    assert told[2] == f"2 of 6 images could not be read and are not in {tmp_path}/lmdb"
    assert "Processed 4 files." in caplog.messages


def test_a_seed_makes_the_same_order_again(root: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="pipeline"):
        first = convert(root, "-shuffle", folder=tmp_path)
    seed = next(message.split("-seed ")[1].split()[0] for message in caplog.messages if "-seed" in message)
    other = tmp_path / "other"
    other.mkdir()
    write_list(other, (tmp_path / "list.txt").read_text())
    assert convert(root, "-shuffle", "-seed", seed, folder=other) == first
    assert sorted(label for _, label in first) == list(range(6))
    third = tmp_path / "third"
    third.mkdir()
    write_list(third, (tmp_path / "list.txt").read_text())
    assert [label for _, label in convert(root, "-shuffle", "-seed=1", folder=third)] == [2, 1, 4, 0, 3, 5]


@pytest.mark.parametrize(
    ("flags", "lines", "error"),
    [
        ([], "0.png 0\n1.png\n", r"list\.txt:2: "),
        ([], "0.png zero\n", r"list\.txt:1: "),
        ([], "0.png\t0\n", r"list\.txt:1: "),
        ([], "", r"list\.txt: no lines"),
        ([], "no.png 0\nnot.png 1\n", r"list\.txt: none of its 2 images can be read in '.*images/'"),
        ([], f"{'a' * 600}.png 0\n", r"list\.txt:1: .* 604 bytes, where a record's key has at most 511"),
        (["-check_size"], "0.png 0\nlarge.png 1\n", r"large\.png: shape \(3, 9, 4\) where \(3, 3, 4\)"),
        (["-check_size", "-encoded"], "0.png 0\nlarge.png 1\n", r"large\.png: shape \(3, 9, 4\)"),
        (["-encode_type", "webm"], "0.png 0\n", r"encode_type: 'webm' is no type"),
        (["-encoded", "-resize_width=2", "-resize_height=2"], "without 0\n", r"without: '' is no type"),
        (["-backend", "hdf5"], "0.png 0\n", r"backend 'hdf5' where lmdb or leveldb"),
        (["-resize_width=999999", "-resize_height=999999"], "0.png 0\n", r"at most 268435456 pixels"),
    ],
)
def test_bad_input_is_an_error_and_leaves_nothing(
    root: str, tmp_path: Path, flags: list[str], lines: str, error: str
) -> None:
    cv2.imwrite(f"{root}large.png", np.zeros((9, 4), np.uint8))
    Path(root, "without").write_bytes(Path(root, "0.png").read_bytes())
    write_list(tmp_path, lines)
    with pytest.raises(InputError, match=error) as caught:
        convert(root, *flags, folder=tmp_path)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "list.txt"]


def test_an_existing_database_stays(root: str, tmp_path: Path) -> None:
    convert(root, folder=tmp_path)
    before = (tmp_path / "lmdb/data.mdb").read_bytes()
    with pytest.raises(InputError, match="lmdb: exists already; remove it"):
        convert(root, folder=tmp_path)
    assert (tmp_path / "lmdb/data.mdb").read_bytes() == before


def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    """Of two thousand images no more than a commit's and those read ahead are held."""
    cv2.imwrite(str(tmp_path / "noise.png"), np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8))
    peaks = []
    for count in (1000, 3000):
        folder = tmp_path / str(count)
        folder.mkdir()
        write_list(folder, "noise.png 1\n" * count)
        tracemalloc.start()
        run_tool("convert_imageset", "-gray", f"{tmp_path}/", folder / "list.txt", folder / "lmdb")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def write_database(path: Path, data: list[Datum]) -> Path:
    with DatabaseWriter(path) as database:
        for number, datum in enumerate(data):
            database.put(b"%08d" % number, datum)
    return path


def test_floats_are_added_as_caffe_adds_them(tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(0, 1e3, (700, 2, 3, 1)).astype(np.float32)
    data = [Datum(channels=2, height=3, width=1, float_data=value.ravel().tolist()) for value in values]
    run_tool("compute_image_mean", write_database(tmp_path / "lmdb", data), tmp_path / "mean")
    total = np.zeros((2, 3, 1), np.float32)
    for value in values:
        total += value
    assert np.array_equal(read_mean(tmp_path / "mean"), total / np.float32(700))


def test_the_mean_is_said_without_an_output(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = [datum_from_image(np.full((1, 2, 2), value, np.uint8), 0) for value in (1, 2)]
    write_database(tmp_path / "lmdb", images)
    with caplog.at_level("INFO", logger="pipeline"):
        run_tool("compute_image_mean", tmp_path / "lmdb")
    assert caplog.messages[-3:] == ["Processed 2 files.", "Number of channels: 1", "mean_value channel [0]: 1.5"]
    assert [path.name for path in tmp_path.iterdir()] == ["lmdb"]


def test_images_of_several_sizes_have_no_mean(tmp_path: Path) -> None:
    data = [datum_from_image(np.zeros(shape, np.uint8), 0) for shape in ((1, 2, 2), (1, 1, 4))]
    write_database(tmp_path / "lmdb", data)
    with pytest.raises(InputError, match=r"record 00000001: shape \(1, 1, 4\) where \(1, 2, 2\)"):
        run_tool("compute_image_mean", tmp_path / "lmdb", tmp_path / "mean")
    assert [path.name for path in tmp_path.iterdir()] == ["lmdb"]


@pytest.mark.parametrize("backend", ["lmdb", "leveldb", "hdf5"])
def test_no_database_is_an_error(tmp_path: Path, backend: str) -> None:
    with pytest.raises(InputError, match="expected"):
        run_tool("compute_image_mean", "-backend", backend, tmp_path / "none", tmp_path / "mean")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(root: str, tmp_path: Path, number: int) -> None:
    write_list(tmp_path, "0.png 0\n" * 10**5)  # many seconds of work
    command: list[str | Path] = [sys.executable, "-m", "pipeline.caffe", "convert_imageset", root]
    command += [tmp_path / "list.txt", tmp_path / "lmdb"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("Processed 1000 files" in line for line in process.stderr)  # reads no further
        process.send_signal(number)
        process.stderr.read()
    assert process.returncode == 128 + number
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "list.txt"]
