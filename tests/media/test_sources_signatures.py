"""Files that are no videos are called what they are, and videos that are cut are told by what they state."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

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
    [("a.avi", "mpeg4"), ("b.avi", "libx264"), ("a.flv", "flv1"), ("b.flv", "libx264"), ("a.wmv", "wmv2")],
)
def test_a_cut_video_is_told_by_what_it_states(
    tmp_path: Path, name: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_video(tmp_path / name, drawn(60), codec=codec)
    assert signatures.cut(path) is None
    with VideoReader(path) as source:
        assert len(list(source)) == 60
    assert (source.failed, caplog.text) == (0, "")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with VideoReader(path) as source:
        frames = len(list(source))
    assert 0 < frames < 60
    assert source.failed > 0
    assert f"{path}: ends after {frames}" in caplog.text
