"""An RTSP camera on 127.0.0.1: H.264 over TCP (RFC 2326; RFC 6184, single NAL units), hanging up when a test says."""

import re
import socketserver
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction

import av
import numpy as np

DESCRIPTION = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=control:*\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=0\r\na=control:track\r\n"
)


def network_units(frames: Sequence[np.ndarray]) -> list[list[bytes]]:
    """The H.264 NAL units of each frame, a key frame each."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = frames[0].shape[:2]
    encoder.pix_fmt = "yuv420p"
    encoder.options = {"tune": "zerolatency", "x264-params": "keyint=1:repeat-headers=1"}
    encoder.framerate = Fraction(25)
    packets = [
        packet for image in frames for packet in encoder.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
    ]
    return [[unit for unit in re.split(rb"\x00\x00\x00?\x01", bytes(packet)) if unit] for packet in packets]


class RtspCamera:
    """Sends the frames over and over; every connection ends after `frames_a_connection` of them."""

    def __init__(
        self, frames: Sequence[np.ndarray], *, frames_a_connection: int, authorization: str | None = None
    ) -> None:
        self.units = network_units(frames)
        self.frames_a_connection = frames_a_connection
        self.authorization = authorization
        self.connections = 0
        self.transports: list[str] = []

    def talk(self, connection: socketserver.StreamRequestHandler) -> None:
        while request := connection.rfile.readline().decode():
            method = request.split()[0]
            headers = {}
            while line := connection.rfile.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            more, status, content = "", "200 OK", ""
            if self.authorization and method != "OPTIONS" and headers.get("authorization") != self.authorization:
                status, more = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
            elif method == "OPTIONS":
                more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
            elif method == "DESCRIBE":
                content = DESCRIPTION
                more = f"Content-Type: application/sdp\r\nContent-Length: {len(content)}\r\n"
            elif method == "SETUP":
                self.transports.append(headers["transport"])
                more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            connection.wfile.write(f"RTSP/1.0 {status}\r\nCSeq: {headers['cseq']}\r\n{more}\r\n{content}".encode())
            if method == "PLAY":
                self.connections += 1
                self.play(connection)
                return

    def play(self, connection: socketserver.StreamRequestHandler) -> None:
        sequence = 0
        for number in range(self.frames_a_connection):
            units = self.units[number % len(self.units)]
            for place, unit in enumerate(units):
                last = place == len(units) - 1
                header = struct.pack(">BBHII", 0x80, 96 | last << 7, sequence, number * 3600, 1)
                connection.wfile.write(struct.pack(">cBH", b"$", 0, len(header) + len(unit)) + header + unit)
                sequence += 1
            time.sleep(0.005)


@contextmanager
def serve_rtsp(camera: RtspCamera) -> Iterator[int]:
    """The port that the camera answers on."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):  # the client has gone
                camera.talk(self)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
