"""Streams: the newest frame, connected again after a drop, given up with a clear error, and never a password told."""

import io
import socket
import ssl
import threading
import time
from collections.abc import Callable
from hashlib import md5
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.request import parse_http_list, parse_keqv_list

import numpy as np
import pytest
from helpers.local_server import body, serve
from helpers.moving_pictures import drawn, number_of, write_video
from helpers.rtsp_camera import RtspCamera, serve_rtsp
from PIL import Image

from pipeline.base.errors import SourceError
from pipeline.media.fetch import FetchError
from pipeline.media.sources import VideoReader, open_sources, stream, video
from pipeline.media.sources.stream import Stream
from pipeline.media.sources.video import VideoAddress

COUNT = 60
TYPE = "multipart/x-mixed-replace; boundary=frame"


def part(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=90)
    return (
        f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data.getvalue())}\r\n\r\n".encode()
        + data.getvalue()
        + b"\r\n"
    )


PARTS = [part(image) for image in drawn(COUNT)]


class Webcam:
    """A camera's MJPEG page: at every connection `frames` of the drawn ones, then it hangs up."""

    def __init__(self, *, frames: int, pause: float = 0.01, credentials: str | None = None) -> None:
        self.frames = frames
        self.pause = pause
        self.credentials = credentials
        self.connections = 0
        self.refusing = False

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        if self.credentials and request.headers["Authorization"] != self.credentials:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="camera"')
            request.end_headers()
            return
        if self.refusing:
            request.send_error(503)
            return
        self.connections += 1
        request.send_response(200)
        request.send_header("Content-Type", TYPE)
        request.end_headers()
        for data in (PARTS * 100)[: self.frames]:
            request.wfile.write(data)
            time.sleep(self.pause)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PAUSES", (0.01, 0.02, 0.03))
    monkeypatch.setattr(video, "OPEN_SECONDS", 2.0)
    monkeypatch.setattr(video, "READ_SECONDS", 0.5)


def test_frames_of_mjpeg_come_in_order_the_newest_each_time() -> None:
    with serve(Webcam(frames=5000)) as port:
        (source,) = open_sources([f"http://127.0.0.1:{port}/video"])
        assert isinstance(source, Stream)
        assert (source.moving, source.live, source.total) == (True, True, None)
        with source:
            frames = iter(source)
            first = next(frames)
            time.sleep(0.2)
            next(frames)  # may have been taken before the pause
            later = next(frames)
            assert source.dropped >= 5
        assert first.image.shape == drawn(1)[0].shape
        assert (first.index, later.index) == (0, 2)
        assert 0 <= (first.time or 0) < (later.time or 0) < 5
        assert number_of(later.image, COUNT) >= number_of(first.image, COUNT) + 5
        assert source.name == f"http://127.0.0.1:{port}/video"


def test_a_stream_that_drops_is_connected_again(caplog: pytest.LogCaptureFixture) -> None:
    webcam = Webcam(frames=10, credentials="Basic dXNlcjpzZWNyZXQ=")
    with serve(webcam) as port, caplog.at_level("INFO", logger="pipeline"):
        (source,) = open_sources([f"http://user:secret@127.0.0.1:{port}/video?key=secret"])
        assert isinstance(source, Stream)
        with source:
            last = -1
            for frame in source:
                assert frame.index == last + 1
                last = frame.index
                if source.reconnections == 3:
                    break
    assert webcam.connections >= 4
    name = f"http://127.0.0.1:{port}/video"
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith(f"{name}: the connection broke off: ")
    assert told[1] == f"{name}: connected again"
    assert "secret" not in caplog.text


def test_rtsp_comes_over_tcp_and_is_connected_again(caplog: pytest.LogCaptureFixture) -> None:
    camera = RtspCamera(drawn(COUNT), frames_a_connection=30, authorization="Basic dXNlcjpzZWNyZXQ=")
    with serve_rtsp(camera) as port:
        (source,) = open_sources([f"rtsp://user:secret@127.0.0.1:{port}/live?channel=1"])
        assert isinstance(source, Stream)
        with source:
            frames = iter(source)
            first = next(frames)
            while source.reconnections < 2:
                next(frames)
    assert source.name == f"rtsp://127.0.0.1:{port}/live"
    assert first.image.shape == drawn(1)[0].shape
    assert 0 <= number_of(first.image, COUNT) < 30
    assert camera.connections >= 3
    assert all(transport.startswith("RTP/AVP/TCP") for transport in camera.transports)
    assert "connecting again" in caplog.text
    assert "secret" not in caplog.text


def test_rtsp_with_a_wrong_password_is_told() -> None:
    camera = RtspCamera(drawn(2), frames_a_connection=2, authorization="Basic dXNlcjpzZWNyZXQ=")
    with (
        serve_rtsp(camera) as port,
        pytest.raises(SourceError, match="asks for a user and password"),
        Stream(f"rtsp://user:wrong@127.0.0.1:{port}/live"),
    ):
        pass


def test_a_camera_that_wants_a_digest_of_the_password_gets_it() -> None:
    webcam = Webcam(frames=50)

    def answer(request: BaseHTTPRequestHandler) -> None:
        kind, _, values = (request.headers["Authorization"] or "").partition(" ")
        given = parse_keqv_list(parse_http_list(values)) if kind == "Digest" else {}
        first = md5(b"user:camera:secret").hexdigest()
        second = md5(f"GET:{request.path}".encode()).hexdigest()
        if given.get("response") == md5(f"{first}:once:{second}".encode()).hexdigest():
            webcam(request)
            return
        request.send_response(401)
        request.send_header("WWW-Authenticate", 'Digest realm="camera", nonce="once"')
        request.send_header("Content-Length", "0")
        request.end_headers()

    with serve(answer) as port:
        (source,) = open_sources([f"http://user:secret@127.0.0.1:{port}/video"])
        with source:
            assert number_of(next(iter(source)).image, COUNT) < COUNT
        (source,) = open_sources([f"http://user:wrong@127.0.0.1:{port}/video"])
        with pytest.raises(SourceError, match="asks for a user and password"), source:
            pass


def test_a_stream_that_stays_away_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    webcam = Webcam(frames=10)
    with serve(webcam) as port:
        (source,) = open_sources([f"http://user:secret@127.0.0.1:{port}/video"])
        with source:
            frames = iter(source)
            next(frames)
            webcam.refusing = True
            with pytest.raises(SourceError, match=r"lost, and not there again after 3 tries: ") as caught:
                for _ in frames:
                    pass
    assert [f"try {number} of 3" in caplog.text for number in (1, 2, 3)] == [True] * 3
    assert "secret" not in caplog.text + str(caught.value)


def test_a_stream_that_falls_silent_counts_as_dropped(caplog: pytest.LogCaptureFixture) -> None:
    silence = threading.Event()
    webcam = Webcam(frames=10)

    def answer(request: BaseHTTPRequestHandler) -> None:
        webcam(request)
        silence.wait(5)

    with serve(answer) as port:
        with Stream(f"http://127.0.0.1:{port}/video") as source:
            frames = iter(source)
            while source.reconnections == 0:
                next(frames)
        silence.set()
    assert "the connection broke off: nothing came for 0.5 s; connecting again" in caplog.text


def test_a_stream_that_never_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "OPEN_SECONDS", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for word in (f"rtsp://user:secret@127.0.0.1:{port}/live?secret", f"http://user:secret@127.0.0.1:{port}/video"):
            with (
                pytest.raises((SourceError, FetchError), match=r"no (full )?answer within 0\.4 s") as caught,
                open_sources([word])[0],
            ):
                pass
            assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("status", "message"), [(404, "404"), (403, "403"), (500, "500")])
def test_a_server_that_says_no_is_told(status: int, message: str) -> None:
    with serve(lambda request: request.send_error(status)) as port:
        with pytest.raises((SourceError, FetchError), match=message) as caught:
            open_sources([f"http://user:secret@127.0.0.1:{port}/video"])
        with pytest.raises(SourceError) as direct, Stream(f"http://user:secret@127.0.0.1:{port}/video"):
            pass
    assert "secret" not in str(caught.value) + str(direct.value)


def test_nobody_there_and_no_such_protocol_are_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SourceError, match="cannot be opened: Connection refused"), Stream(f"rtsp://127.0.0.1:{port}/"):
        pass
    with pytest.raises(SourceError, match=r"gopher:// where rtsp, rtsps, http or https was expected"):
        open_sources(["gopher://127.0.0.1/"])


def test_a_page_that_is_no_stream_is_told() -> None:
    with (
        serve(body(b"not a video " * 500, "application/octet-stream", Content_Length="")) as port,
        pytest.raises(SourceError, match="neither an image nor a video"),
        open_sources([f"http://127.0.0.1:{port}/video"])[0],
    ):
        pass


def hls(folder: Path, *, end: bool) -> Callable[[BaseHTTPRequestHandler], None]:
    write_video(folder / "0.ts", drawn(30), container="mpegts", options={"g": "10"})
    ending = "#EXT-X-ENDLIST\n" if end else ""
    playlist = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n0.ts\n{ending}".encode()

    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path.endswith(".m3u8"):
            body(playlist, "application/vnd.apple.mpegurl")(request)
        else:
            body((folder / "0.ts").read_bytes(), "video/mp2t")(request)

    return answer


def test_a_playlist_with_an_end_is_a_video_of_which_no_frame_is_dropped(tmp_path: Path) -> None:
    with serve(hls(tmp_path, end=True)) as port:
        (source,) = open_sources([f"http://127.0.0.1:{port}/video.m3u8"])
        assert isinstance(source, VideoAddress)
        assert not isinstance(source, VideoReader)
        with source:
            assert [number_of(frame.image, 30) for frame in source] == list(range(30))


def test_a_playlist_without_an_end_is_a_stream(tmp_path: Path) -> None:
    with serve(hls(tmp_path, end=False)) as port:
        (source,) = open_sources([f"http://127.0.0.1:{port}/video.m3u8"])
        assert isinstance(source, Stream)
        with source:
            assert next(iter(source)).image.shape == drawn(1)[0].shape


def test_ffmpeg_trusts_no_certificate_that_nobody_vouches_for(
    pems: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "0.mp4", drawn(5))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pems)
    with serve(body((tmp_path / "0.mp4").read_bytes(), "video/mp4"), context) as port:
        url = f"https://localhost:{port}/0.mp4"
        with pytest.raises(SourceError), VideoAddress(url):
            pass
        monkeypatch.setenv("SSL_CERT_FILE", str(pems[0]))
        with VideoAddress(url) as source:
            assert len(list(source)) == 5


def test_a_stream_that_is_left_is_let_go() -> None:
    with serve(Webcam(frames=5000)) as port, Stream(f"http://127.0.0.1:{port}/video") as source:
        next(iter(source))
        assert source.name in {thread.name for thread in threading.enumerate()}
    assert source.name not in {thread.name for thread in threading.enumerate()}
