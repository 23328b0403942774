"""Files that are no videos are called what they are, and videos that are cut are told by what they state."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import av
import pytest
from helpers.moving_pictures import drawn, write_video
from PIL import Image

from pipeline.base.errors import SourceError
from pipeline.media.sources import VideoReader, signatures


def jpeg() -> bytes:
    data = io.BytesIO()
    Image.fromarray(drawn(1)[0]).save(data, "JPEG")
    return data.getvalue()


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for number in range(5):
            file.writestr(f"{number}.jpg", jpeg())
    return data.getvalue()


def tarred() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(jpeg())
            file.addfile(info, io.BytesIO(jpeg()))
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (zipped(), "a ZIP archive"),
        (tarred(), "a tar archive"),
        (gzip.compress(jpeg()), "gzip data"),
        (b"%PDF-1.7\n" + 3 * jpeg() + b"%%EOF", "a PDF document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504) + 3 * jpeg(), "a document of Microsoft Office"),
        (b"{\\rtf1 " + 3 * jpeg(), "an RTF document"),
        (b"<html>" + 3 * jpeg(), "a page"),
        (b"ID3\4" + bytes(6) + 3 * jpeg(), "a sound file"),
        (bytes(100) + 3 * jpeg(), "neither an image nor a video"),
    ],
)
def test_what_holds_pictures_is_no_video_of_them(tmp_path: Path, data: bytes, kind: str) -> None:
    path = tmp_path / "many"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=f"^{path}: {kind}"), VideoReader(path):
        pass


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.avi", "mpeg4"),
        ("b.avi", "libx264"),
        ("a.flv", "flv1"),
        ("b.flv", "libx264"),
        ("a.wmv", "wmv2"),
        ("a.mkv", "mpeg4"),
        ("a.webm", "libvpx"),
        ("a.ogv", "libvpx"),
        ("a.ts", "mpeg2video"),
        ("a.m2ts", "mpeg2video"),
    ],
)
def test_a_cut_video_is_told_by_what_it_states(
    tmp_path: Path, name: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    container = {"ogv": "ogg", "m2ts": "mpegts"}.get(name.split(".")[1])
    path = write_video(tmp_path / name, drawn(60), codec=codec, container=container)
    assert signatures.cut(path) is None
    with VideoReader(path) as source:
        assert len(list(source)) == 60
    assert (source.failed, caplog.text) == (0, "")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10 - 7])  # no whole number of packets
    with VideoReader(path) as source:
        frames = len(list(source))
    assert 0 < frames < 60
    assert source.failed > 0
    assert f"{path}: ends after {frames}" in caplog.text


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.flv", "a.wmv", "a.mp4", "a.ts", "a.mpg", "a.y4m", "a.ivf"])
def test_what_is_cut_anywhere_is_looked_at_without_an_error(tmp_path: Path, name: str) -> None:
    codec = {"a.flv": "flv1", "a.mpg": "mpeg2video", "a.y4m": "rawvideo", "a.ivf": "libvpx"}.get(name, "mpeg4")
    path = write_video(tmp_path / name, drawn(3), codec=codec, container={"a.y4m": "yuv4mpegpipe"}.get(name))
    whole = path.read_bytes()
    for size in range(400):
        path.write_bytes(whole[:size])
        signatures.cut(path)


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.ogv", "a.avi", "a.flv", "a.wmv", "a.mp4", "a.ts"])
@pytest.mark.parametrize("missing", [2, 10, 100])
def test_the_last_bytes_are_missed_too(tmp_path: Path, name: str, missing: int) -> None:
    suffix = name.split(".")[1]
    codec = {"webm": "libvpx", "ogv": "libvpx", "flv": "flv1"}.get(suffix, "mpeg4")
    fragments = {"movflags": "frag_keyframe+empty_moov"} if suffix == "mp4" else None
    with av.open(str(tmp_path / name), "w", format="ogg" if suffix == "ogv" else None, options=fragments) as file:
        stream = file.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 96, 64
        for image in drawn(40):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        file.mux(stream.encode(None))
    path = tmp_path / name
    assert signatures.cut(path) is None
    whole = path.read_bytes()
    if suffix == "mp4":
        whole = whole[: whole.rindex(b"mfra") - 4]  # an index, behind the last picture
    path.write_bytes(whole[:-missing])
    assert signatures.cut(path) is not None


@pytest.mark.parametrize(
    ("container", "codec", "pixels"),
    [
        ("mpeg", "mpeg1video", "yuv420p"),
        ("vob", "mpeg2video", "yuv420p"),
        ("mjpeg", "mjpeg", "yuvj420p"),
        ("ivf", "libvpx", "yuv420p"),
        ("yuv4mpegpipe", "rawvideo", "yuv420p"),
        ("yuv4mpegpipe", "rawvideo", "yuv411p"),
        ("yuv4mpegpipe", "rawvideo", "yuv444p"),
        ("yuv4mpegpipe", "rawvideo", "gray"),
    ],
)
def test_a_last_picture_that_is_cut_is_told(
    tmp_path: Path, container: str, codec: str, pixels: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / "a.video", drawn(12), codec=codec, container=container, pixels=pixels)
    assert signatures.cut(path) is None
    with VideoReader(path) as source:
        assert len(list(source)) == 12
    assert (source.failed, caplog.text) == (0, "")
    whole = path.read_bytes()
    for missing in (1, 3, 100, len(whole) // 2 - 3):
        path.write_bytes(whole[:-missing])
        assert signatures.cut(path) is not None
    with VideoReader(path) as source:
        frames = len(list(source))
    assert frames < 12
    assert source.failed > 0
    assert f"{path}: ends after {frames}" in caplog.text


@pytest.mark.parametrize(
    ("header", "picture"),
    [
        ("W5 H3 F25:1 Ip A1:1 C420jpeg", 15 + 2 * 3 * 2),
        ("C420p10 H3 W5", 2 * (15 + 2 * 3 * 2)),
        ("W5 H3 C422p12", 2 * (15 + 2 * 3 * 3)),
        ("W5 H3 C444alpha", 4 * 15),
        ("W5 H3 Cmono16", 2 * 15),
        ("W5 H3", 15 + 2 * 3 * 2),
    ],
)
def test_pictures_of_y4m_have_the_size_that_their_header_says(tmp_path: Path, header: str, picture: int) -> None:
    path = tmp_path / "a.y4m"
    whole = f"YUV4MPEG2 {header}\n".encode() + b"FRAME\n" + bytes(picture) + b"FRAME Ip\n" + bytes(picture)
    path.write_bytes(whole)
    assert signatures.cut(path) is None
    for missing in (1, picture, picture + 4):
        path.write_bytes(whole[:-missing])
        assert signatures.cut(path) is not None
    path.write_bytes(whole.replace(b"H3", b"Hx"))
    assert signatures.cut(path) is None


def test_dv_has_whole_frames(tmp_path: Path) -> None:
    for system, size in ((0x3F, 120_000), (0xBF, 144_000)):
        (tmp_path / "a.dv").write_bytes(bytes((0x1F, 7, 0, system)) + bytes(3 * size - 4))
        assert signatures.cut(tmp_path / "a.dv") is None
        (tmp_path / "a.dv").write_bytes(bytes((0x1F, 7, 0, system)) + bytes(3 * size - 80))
        assert signatures.cut(tmp_path / "a.dv") is not None


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x10ftypisomisom" + b"\0\0\0\x08free" * 1000,
        b"RIFF\4\0\0\0AVI " * 1000,
        b"DKIF" + bytes(28 + 12 * 1000),
        b"YUV4MPEG2 W0 H0\n" + b"FRAME\n" * 1000,
    ],
)
def test_a_file_of_very_many_parts_is_not_looked_at_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(signatures, "MAX_PARTS", 100)
    (tmp_path / "many").write_bytes(data[:-3])
    assert signatures.cut(tmp_path / "many") is None
    monkeypatch.setattr(signatures, "MAX_PARTS", 2000)
    (tmp_path / "many").write_bytes(data)
    assert signatures.cut(tmp_path / "many") is None
