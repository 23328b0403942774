"""Frames over a WebSocket: numbered, the newest first, and every end of a session told by its code."""

import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from helpers.running_server import Painted, Running, picture
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pipeline.base.image_files import decode_image
from pipeline.base.rate_limit import RateLimit
from pipeline.media.frames import Frame
from pipeline.predictor import Predictor
from pipeline.server import sessions
from pipeline.server.guard import Access
from pipeline.server.limits import Limits

Start = Callable[..., Running]
TOKEN = "correct-horse-battery"


def join(running: Running, **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{running.port}/v1/live", proxy=None, **options)


def receive(live: ClientConnection) -> dict[str, Any]:
    return json.loads(live.recv(timeout=10))


def ended(live: ClientConnection) -> tuple[int, str]:
    """The code and reason that the server closed with."""
    with pytest.raises(ConnectionClosed) as closed:
        deque(live, 0)  # all messages until then
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


def test_a_face_is_found_and_keeps_its_number(real: Running, portrait: bytes) -> None:
    with join(real) as live:
        ready = receive(live)
        assert (ready["type"], ready["model"]) == ("ready", {"name": "TestNet", "version": "7"})
        readings = []
        for number in range(3):
            live.send(portrait)
            message = receive(live)
            assert (message["type"], message["frame"], message["dropped"]) == ("reading", number, 0)
            readings.append(message["reading"])
    tracks = {face["track"] for reading in readings for face in reading["faces"]}
    assert [len(reading["faces"]) for reading in readings] == [1, 1, 1]
    assert len(tracks) == 1
    assert None not in tracks
    assert readings[0]["time"] < readings[1]["time"] < readings[2]["time"]
    assert [reading["frame"] for reading in readings] == [0, 1, 2]


def test_of_frames_that_wait_the_newest_is_read_and_the_others_are_counted(start: Start, painted: Painted) -> None:
    running = start(painted)
    painted.gate.clear()
    with join(running) as live:
        receive(live)
        live.send(picture(20))
        for _ in range(200):
            if running.figure("expressions_queue") == 1:
                break
            time.sleep(0.01)
        for width in range(21, 30):
            live.send(picture(width))
        for _ in range(500):
            if running.figure("expressions_frames_dropped_total") == 8:
                break
            time.sleep(0.01)
        assert running.figure("expressions_sessions") == 1
        painted.gate.set()
        first, second = receive(live), receive(live)
        assert (first["frame"], first["reading"]["width"]) == (0, 20)
        assert (second["frame"], second["dropped"], second["reading"]["width"]) == (9, 8, 29)
        assert len(painted.frames) == 2
    assert running.figure('expressions_images_total{way="live"}') == 2


def test_each_connection_is_a_picture_of_its_own(start: Start, painted: Painted) -> None:
    running = start(painted)
    with join(running) as one, join(running) as other:
        for live in (one, other):
            receive(live)
            live.send(picture())
            assert receive(live)["frame"] == 0
    assert painted.opened == 2


def test_a_frame_that_cannot_be_read_is_told_and_the_next_one_read(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(frame_pixels=1000))
    with join(running) as live:
        receive(live)
        codes = {b"no image": "unreadable_image", b"": "unreadable_image", picture(40, 30): "too_many_pixels"}
        for data, code in codes.items():
            live.send(data)
            message = receive(live)
            assert (message["type"], message["problem"]["code"]) == ("problem", code)
        assert "40x30 pixels" in message["problem"]["detail"]
        live.send(picture(20, 20))
        assert receive(live)["frame"] == 3


def test_the_token_comes_by_header_or_as_the_first_message(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(head_seconds=0.3), Access(TOKEN))
    with join(running, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as live:
        assert receive(live)["type"] == "ready"
    with join(running) as live:
        live.send(json.dumps({"token": TOKEN}))
        assert receive(live)["type"] == "ready"
        live.send(picture())
        assert receive(live)["frame"] == 0
    for first in ('{"token": "wrong"}', '{"token": ""}', '{"token": "\\ud800"}', '{"explain": true}'):
        with join(running) as live:
            live.send(first)
            assert ended(live)[0] == 4401
    with join(running) as live:
        live.send(picture())
        assert ended(live)[0] == 4400
    with join(running) as live:
        assert ended(live)[0] == 4408
    assert len(painted.frames) == 1


def test_a_heat_map_on_a_websocket_is_pythons(real: Running, portrait: bytes) -> None:
    with join(real) as live:
        receive(live)
        live.send('{"explain": true}')
        live.send(portrait)
        found = receive(live)["reading"]
    frame = Frame("live", decode_image(portrait, "portrait"), 0, found["time"])
    assert found["faces"] == Predictor().session().read(frame, explain=True).to_json()["faces"]
    assert "explanation" in found["faces"][0]


def test_heat_maps_are_given_from_the_frame_on_that_asks_for_them(real: Running, portrait: bytes) -> None:
    """The face keeps its number."""
    faces = []
    with join(real) as live:
        receive(live)
        for option in (None, '{"explain": true}', None, '{"explain": false}'):
            if option:
                live.send(option)
            live.send(portrait)
            faces += receive(live)["reading"]["faces"]
    assert [face["track"] for face in faces] == [1, 1, 1, 1]
    assert ["explanation" in face for face in faces] == [False, True, True, False]


@pytest.mark.parametrize(("explain", "frames"), [(False, 8), (True, 4)])
def test_a_heat_map_counts_as_one_more_message(
    start: Start, painted: Painted, monkeypatch: pytest.MonkeyPatch, explain: bool, frames: int
) -> None:
    monkeypatch.setattr(sessions, "RateLimit", partial(RateLimit, clock=lambda: 0.0))
    with join(start(painted, Limits(frame_rate=9), explaining=painted)) as live:
        receive(live)
        live.send(json.dumps({"explain": explain}))
        for _ in range(frames):
            live.send(picture())
        while receive(live)["frame"] < frames - 1:
            pass
        live.send(picture())
        assert ended(live) == (4429, "more than 9 messages and heat maps a second")


def test_heat_maps_are_refused_where_there_are_none(start: Start, painted: Painted) -> None:
    with join(start(painted)) as live:
        receive(live)
        live.send('{"explain": false}')
        live.send(picture())
        assert receive(live)["frame"] == 0
        live.send('{"explain": true}')
        assert ended(live) == (4403, "no heat maps here; ask without, or start the server with --explain")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "[]",
        '{"token": 7}',
        '{"min_face": 3}',
        '{"explain": 1}',
        '{"token": "", "explain": true}',
        "{" + " " * 5000 + "}",
        "[" * 4000,
    ],
)
def test_other_texts_are_not_understood(start: Start, painted: Painted, text: str) -> None:
    with join(start(painted)) as live:
        receive(live)
        live.send(text)
        code, reason = ended(live)
    assert code == 4400
    assert "binary" in reason


def test_a_token_that_nobody_asked_for_does_no_harm(start: Start, painted: Painted) -> None:
    with join(start(painted)) as live:
        live.send('{"token": "anything"}')
        receive(live)
        live.send(picture())
        assert receive(live)["type"] == "reading"


def test_limits_end_a_session_with_their_own_code(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(idle_seconds=0.3, frame_bytes=2000, frame_rate=5, sessions=2, client_sessions=2))
    with join(running) as live:
        receive(live)
        assert ended(live) == (4408, "nothing came for 0.3 s")
    with join(running) as live:
        receive(live)
        live.send(b"x" * 2001)
        assert ended(live)[0] == 1009
    with join(running) as live:
        receive(live)
        with suppress(ConnectionClosed):
            for _ in range(10):
                live.send(picture())
        assert ended(live)[0] == 4429
    with join(running), join(running), join(running) as third:
        assert ended(third)[0] == 4503
    with join(running) as live:
        assert receive(live)["type"] == "ready"


NO_DATA = b"\x80\0\0\0\0"  # masked, as a client's frames are


@pytest.mark.parametrize("first", [b"\x89", b"\x8a", b"\0"], ids=["ping", "pong", "fragment"])
def test_what_the_application_never_sees_counts_too(start: Start, painted: Painted, first: bytes) -> None:
    running = start(painted, Limits(frame_rate=5))
    with join(running) as live:
        receive(live)
        if first == b"\0":
            live.socket.sendall(b"\x02" + NO_DATA)  # of which the fragments go on
        live.socket.sendall(4 * (first + NO_DATA))
        time.sleep(0.2)
        assert running.figure("expressions_sessions") == 1
        live.socket.sendall(30 * (first + NO_DATA))
        assert ended(live) == (4429, "more than 5 pings or fragments a second")
    assert painted.frames == []


def test_pages_of_other_origins_and_names_are_refused(
    start: Start, painted: Painted, caplog: pytest.LogCaptureFixture
) -> None:
    running = start(painted)
    with pytest.raises(InvalidStatus) as refused:
        join(running, origin="https://evil.example")
    assert refused.value.response.status_code == 403
    assert b'"other_origin"' in refused.value.response.body
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://localhost:{running.port}/v1/live", proxy=None, additional_headers={"Host": "evil.example"})
    assert refused.value.response.status_code in (400, 421)
    with join(running, origin=running.url) as live:
        assert receive(live)["type"] == "ready"
    assert caplog.messages == []


def test_clients_that_leave_without_a_word_leave_nothing_behind(
    start: Start, painted: Painted, caplog: pytest.LogCaptureFixture
) -> None:
    running = start(painted)
    key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGVzdA==\r\nSec-WebSocket-Version: 13"
    head = f"GET /v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\n{key}\r\n\r\n".encode()
    for number in range(30):
        with socket.create_connection(("127.0.0.1", running.port)) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", number % 2, 0))  # reset every second
            raw.sendall(head + b"\x82\x84\0\0\0\0abcd" * (number % 3))
    with join(running) as connection:
        receive(connection)
        connection.send(picture())
        assert receive(connection)["type"] == "reading"
    for _ in range(500):
        if running.figure("expressions_sessions") == 0 and running.connections <= 1:
            break
        time.sleep(0.01)
    assert running.figure("expressions_sessions") == 0
    assert running.connections <= 1
    assert caplog.messages == []


def test_a_fault_of_ours_ends_the_session_and_not_the_server(start: Start, painted: Painted) -> None:
    running = start(painted)
    painted.frames = None  # type: ignore[assignment]
    with join(running) as live:
        receive(live)
        live.send(picture())
        assert ended(live)[0] == 1011
    painted.frames = []
    with join(running) as live:
        receive(live)
        live.send(picture())
        assert receive(live)["type"] == "reading"
    for _ in range(200):
        if running.figure("expressions_sessions") == 0:
            break
        time.sleep(0.01)
    assert running.figure("expressions_sessions") == 0


def test_open_sessions_are_told_when_the_server_stops(start: Start, painted: Painted) -> None:
    running = start(painted)
    with join(running) as live:
        receive(live)
        running.uvicorn.should_exit = True
        assert ended(live)[0] == 1012
