"""Clients that send too much, too slowly or not at all, and many of them: each is answered, and the server goes on."""

import asyncio
import http.client
import io
import json
import logging
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.running_server import MANY, Painted, Running, picture
from PIL import Image

from pipeline.base import image_files
from pipeline.server.limits import Limits
from pipeline.server.transport import Clients

Start = Callable[..., Running]
HEAD = b"POST /v1/read HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"


def connect(running: Running) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=10)
    connection.settimeout(10)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def answered(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of the next answer."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return response.status, json.loads(response.read())


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("waited in vain")


def drip(connection: socket.socket, data: bytes) -> None:
    for _ in range(200):
        connection.sendall(data)
        time.sleep(0.05)


def goes_on(running: Running) -> None:
    assert running.post("/v1/read", files={"image": picture(33, 22)}).json()["width"] == 33


def test_a_body_declared_too_large_is_refused_before_it_is_sent(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(body_bytes=1000))
    with connect(running) as connection:
        connection.sendall(HEAD + b"Content-Length: 9999999999\r\nExpect: 100-continue\r\n\r\n")
        status, told = answered(connection)
    assert (status, told["code"]) == (413, "too_large")
    goes_on(running)


def test_a_body_of_no_declared_size_is_refused_once_it_is_too_large(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(body_bytes=100_000))
    with connect(running) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(15):
            connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert answered(connection)[0] == 413
    goes_on(running)


def test_all_bodies_together_have_a_limit(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(body_bytes=50_000, held_bytes=60_000, body_seconds=10))
    with connect(running) as connection:
        connection.sendall(HEAD + b"Content-Length: 50000\r\n\r\n" + b"x" * 40_000)
        wait_until(lambda: running.post("/v1/read", files={"image": b"x" * 30_000}).status_code == 503)
        goes_on(running)
    wait_until(lambda: running.post("/v1/read", files={"image": b"x" * 30_000}).status_code == 422)


def test_bodies_that_wait_to_be_read_are_held_as_well(start: Start, painted: Painted) -> None:
    image = picture(90, 60)
    running = start(painted, Limits(workers=1, body_bytes=len(image), held_bytes=2 * len(image)))
    painted.gate.clear()
    statuses: list[int] = []

    def send() -> None:
        statuses.append(running.post("/v1/read", content=image, headers={"Content-Type": "image/png"}).status_code)

    senders = [threading.Thread(target=send) for _ in range(6)]
    for sender in senders:
        sender.start()
    try:
        wait_until(lambda: len(statuses) == 4)
        assert running.figure("expressions_queue") == 2
    finally:
        painted.gate.set()
    for sender in senders:
        sender.join()
    assert Counter(statuses) == {503: 4, 200: 2}


@pytest.mark.parametrize("sent", [b"", b"POST /v1/re", HEAD, HEAD + b"X: " + b"y" * 100])
def test_a_head_that_does_not_end_is_not_waited_for(start: Start, painted: Painted, sent: bytes) -> None:
    running = start(painted, Limits(head_seconds=0.3))
    with connect(running) as connection:
        connection.sendall(sent)
        assert rest(connection) == b""
    goes_on(running)


def test_a_second_head_on_one_connection_is_not_waited_for_either(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(head_seconds=0.3))
    with connect(running) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answered(connection)[0] == 200
        connection.sendall(b"GET /hea")
        assert rest(connection) == b""


def test_dripping_bytes_buy_no_time(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(head_seconds=0.5))
    with connect(running) as connection:
        connection.sendall(HEAD)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip(connection, b"X")
    goes_on(running)


def test_a_slow_body_is_told_that_it_is_late(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(body_seconds=0.3))
    with connect(running) as connection:
        connection.sendall(HEAD + b"Content-Length: 500\r\n\r\n" + b"x" * 10)
        status, told = answered(connection)
    assert (status, told["code"]) == (408, "too_slow")
    goes_on(running)


def test_a_client_that_goes_on_sending_after_its_refusal_is_cut_off(
    start: Start, painted: Painted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.server.transport.LINGER_SECONDS", 0.3)
    running = start(painted, Limits(body_bytes=1000))
    with connect(running) as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999\r\n\r\n")
        assert answered(connection)[0] == 413
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip(connection, b"x" * 1000)


def test_half_open_sockets_hinder_nobody_and_are_closed(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(head_seconds=0.5, client_connections=100))
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(running)) for _ in range(50)]
        goes_on(running)
        assert all(rest(connection) == b"" for connection in idle)
    wait_until(lambda: running.connections == 0)


def test_a_client_that_takes_no_answer_is_cut_off(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(send_seconds=0.5))
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", running.port))
        wait_until(lambda: running.connections == 1)
        connection.setblocking(False)
        request = b"GET /app.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with suppress(OSError):  # the server reads no more of them
            for _ in range(4000):
                connection.send(request)
        wait_until(lambda: running.connections == 0)
    goes_on(running)


def test_connections_beyond_the_limit_are_told_so(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(connections=3))
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(running))
        wait_until(lambda: running.connections == 3)
        with connect(running) as connection:
            answer = rest(connection)
        assert answer.startswith(b"HTTP/1.1 503")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "busy"
    wait_until(lambda: running.connections == 0)
    goes_on(running)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"\r\n" * 50_000,
        b"GET / HTTP/1.1\r\nX: " + b"y" * 50_000,
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(start: Start, painted: Painted, sent: bytes) -> None:
    running = start(painted, Limits(head_seconds=0.5))
    with connect(running) as connection:
        with suppress(OSError):  # refused before all was sent
            connection.sendall(sent)
        answer = rest(connection)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    goes_on(running)


def test_beyond_the_queue_the_answer_is_to_come_back_later(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(workers=1, waiting=1, rate=1e6, burst=1000))
    painted.gate.clear()
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(running.post("/v1/read", files={"image": picture()}))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(answers) == 4)
    health = running.get("/health").json()
    assert (health["live"], health["ready"]) == (True, False)
    assert {answer.status_code for answer in answers} == {503}
    assert all(answer.json()["code"] == "busy" and int(answer.headers["retry-after"]) > 0 for answer in answers)
    painted.gate.set()
    for thread in threads:
        thread.join(10)
    assert Counter(answer.status_code for answer in answers) == {503: 4, 200: 2}
    goes_on(running)


@pytest.mark.parametrize(
    "limits", [MANY, Limits(client_connections=200)], ids=["in one queue", "with the usual limits"]
)
def test_two_hundred_clients_at_once_each_get_their_own_answer(start: Start, painted: Painted, limits: Limits) -> None:
    running = start(painted, limits)

    async def ask(client: httpx.AsyncClient, number: int) -> tuple[int, httpx.Response]:
        files = {"image": (f"{number}.png", picture(40 + number, 30))}
        return number, await client.post("/v1/read", files=files)

    async def all_at_once() -> list[tuple[int, httpx.Response]]:
        bounds = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=running.url, timeout=30, limits=bounds, trust_env=False) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(200)))

    answers = asyncio.run(all_at_once())
    assert len(answers) == 200
    for number, answer in answers:
        if answer.status_code == 200:
            assert (answer.json()["file"], answer.json()["width"]) == (f"{number}.png", 40 + number)
        else:
            assert answer.json()["code"] == {429: "too_often", 503: "busy"}[answer.status_code]
            assert int(answer.headers["retry-after"]) >= 1
    counts = Counter(answer.status_code for _, answer in answers)
    assert counts[200] >= 60
    assert counts[200] + counts[429] + counts[503] == 200
    assert running.get("/health").json()["ready"]
    wait_until(lambda: running.connections <= 1)


def test_clients_that_leave_in_the_middle_leave_nothing_behind(start: Start, painted: Painted) -> None:
    running = start(painted)
    for _ in range(20):
        with connect(running) as connection:
            connection.sendall(HEAD + b"Content-Length: 500\r\n\r\n" + b"x" * 10)
    goes_on(running)
    wait_until(lambda: running.connections <= 1)
    assert running.figure("expressions_queue") == 0


def test_a_large_picture_is_searched_at_a_bounded_size_and_the_answer_says_so(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(searched_pixels=10_000))
    told = running.post("/v1/read", files={"image": picture(400, 100)}).json()
    (frame,) = painted.frames
    assert frame.image.shape == (50, 200, 3)
    assert told["searched"] == {"width": 200, "height": 50}
    assert (told["width"], told["height"]) == (400, 100)
    assert told["faces"][0]["box"] == pytest.approx([0, 0, 399, 99], abs=1)
    drawn = running.post("/v1/read", files={"image": picture(400, 100)}, headers={"Accept": "image/png"})
    small = running.post("/v1/read", files={"image": picture(200, 50)}, headers={"Accept": "image/png"})
    assert Image.open(io.BytesIO(drawn.content)).size == Image.open(io.BytesIO(small.content)).size
    small = running.post("/v1/read", files={"image": picture(100, 100)}).json()
    assert small["searched"] == {"width": 100, "height": 100}


def test_long_and_narrow_pictures_are_refused_before_they_are_unpacked(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(side=300, ratio=20))
    for width, height, code in ((301, 100, "too_many_pixels"), (10, 201, "too_narrow"), (201, 10, "too_narrow")):
        answer = running.post("/v1/read", files={"image": picture(width, height)})
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert painted.frames == []
    assert running.post("/v1/read", files={"image": picture(200, 10)}).status_code == 200


def test_a_picture_costs_its_megapixels(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(rate=0.01, burst=5))
    assert running.post("/v1/read", files={"image": picture(2000, 1500)}).status_code == 200
    answer = running.post("/v1/read", files={"image": picture(2000, 1500)})
    assert (answer.status_code, answer.json()["code"]) == (429, "too_often")
    assert len(painted.frames) == 1
    assert running.post("/v1/read", files={"image": picture(1000, 1000)}).status_code == 200


def test_a_body_in_chunks_of_a_byte_is_refused(start: Start, painted: Painted) -> None:
    running = start(painted)
    with connect(running) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"1\r\nx\r\n" * 50_000)
        status, told = answered(connection)
    assert (status, told["code"]) == (400, "small_chunks")
    with connect(running) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        data = picture() + bytes(1 << 20)  # what follows a PNG's end is no part of it
        for start_of in range(0, len(data), 1024):
            piece = data[start_of : start_of + 1024]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert answered(connection)[0] == 200


def test_a_refusal_reaches_a_client_that_sends_all_it_has_first(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(body_bytes=1000))
    for request in (HEAD + b"Content-Length: 3000000\r\n\r\n", HEAD.replace(b"127.0.0.1", b"else.where")):
        for _ in range(5):
            with connect(running) as connection:
                connection.sendall(request if b"Length" in request else request + b"Content-Length: 3000000\r\n\r\n")
                connection.sendall(bytes(3_000_000))
                time.sleep(0.05)
                assert answered(connection)[0] in (413, 421)


def test_one_client_cannot_have_all_connections(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(client_connections=3))
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(running))
        wait_until(lambda: running.connections == 3)
        with connect(running) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status, told = answered(connection)
        assert (status, told["detail"]) == (503, "Each client may have 3 connections open.")
        with socket.create_connection(("127.0.0.1", running.port), 10, ("127.0.0.2", 0)) as other:
            other.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answered(other)[0] == 200
    wait_until(lambda: running.connections == 0)
    goes_on(running)


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Path, Path]:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *subject, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def is_well(running: Running, certificate: Path) -> bool:
    """Whether a client's TLS is answered."""
    trust = ssl.create_default_context(cafile=str(certificate))
    try:
        return httpx.get(f"https://127.0.0.1:{running.port}/health", verify=trust, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_handshakes_that_do_not_end_count_and_are_ended(start: Start, painted: Painted, tls: tuple[Path, Path]) -> None:
    limits = Limits(client_connections=3, head_seconds=3)  # time for a loaded machine to see all three at once
    running = start(painted, limits, tls=tls)
    assert is_well(running, tls[0])
    wait_until(lambda: running.connections == 0)  # else that one would count in place of a silent one
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(running)) for _ in range(3)]
        wait_until(lambda: not is_well(running, tls[0]))  # the three are all that this client may have
        for connection in silent:
            assert rest(connection) == b""  # after three seconds
        wait_until(lambda: is_well(running, tls[0]))
    for _ in range(3):  # whoever goes away in the middle does not count
        connect(running).close()
    wait_until(lambda: is_well(running, tls[0]))


def test_a_proxys_connections_are_those_of_many(painted: Painted) -> None:
    clients = Clients(Limits(client_connections=1, connections=5), "10.0.0.0/8")
    clients.open.update({"10.0.0.1": 3, "192.0.2.1": 2})
    assert clients.refusal("10.0.0.1") is None
    assert clients.refusal("192.0.2.1") == "Each client may have 1 connections open."
    clients.open["2001:db8::/64"] = 1
    assert clients.refusal("10.0.0.1") == "Too many connections are open."


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nno chunk\r\n",
        HEAD + b"Content-Length: 99999999999\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD.replace(b"127.0.0.1", b"else.where") + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nno chunk\r\n",
        b"GET /v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OTAxMjM0NQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\x81\x82\0\0\0\0\xff\xfe",
    ],
    ids=["bad chunk", "two lengths", "bad chunk after a refusal", "WebSocket text that is no UTF-8"],
)
def test_visitors_write_no_traceback(
    start: Start, painted: Painted, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    running = start(painted)
    with connect(running) as connection:
        connection.sendall(sent[:-12])
        time.sleep(0.1)
        with suppress(OSError):
            connection.sendall(sent[-12:])
            connection.shutdown(socket.SHUT_WR)
        rest(connection)
    goes_on(running)
    assert not [record for record in caplog.records if record.exc_info or record.levelno > logging.WARNING]


@pytest.mark.parametrize(
    "form",
    [
        b"no boundary",
        b'--B\r\nContent-Disposition: form-data; name="a"; filename="b"\r\nContent-Transfer-Encoding: mine\r\n\r\nx',
        b"--B\r\n\xff: y\r\n\r\n",
    ],
)
def test_forms_write_nothing_into_the_log(
    start: Start, painted: Painted, caplog: pytest.LogCaptureFixture, form: bytes
) -> None:
    running = start(painted)
    headers = {"Content-Type": "multipart/form-data; boundary=B"}
    assert running.post("/v1/read", content=form + b"\r\n--B--\r\n", headers=headers).status_code in (400, 422)
    assert not [record for record in caplog.records if not record.name.startswith("httpx")]


def test_stopping_while_a_picture_is_read_writes_no_traceback(
    start: Start, painted: Painted, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.server.transport.STOP_SECONDS", 0)
    running = start(painted)
    painted.gate.clear()
    with connect(running) as connection:
        data = picture()
        connection.sendall(HEAD + f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        wait_until(lambda: running.figure("expressions_queue") == 1)
        running.uvicorn.should_exit = True
        rest(connection)
    wait_until(lambda: not running.uvicorn.server_state.tasks)
    time.sleep(0.3)
    painted.gate.set()
    time.sleep(0.3)
    assert not [record for record in caplog.records if record.exc_info or record.levelno > logging.WARNING]


@pytest.mark.parametrize("error", [RuntimeError, SyntaxError, ZeroDivisionError, MemoryError, OSError, struct.error])
def test_one_damaged_image_of_a_batch_costs_itself_alone_whatever_its_decoder_raises(
    start: Start, painted: Painted, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    flat = image_files._flat

    def fail(image: Image.Image) -> Image.Image:
        if image.size == (7, 7):
            raise error("of the decoder's own")
        return flat(image)

    monkeypatch.setattr(image_files, "_flat", fail)
    running = start(painted)
    files = [("images", (f"{width}.png", picture(width, 7))) for width in (6, 7, 8)]
    told = running.post("/v1/batch", files=files).json()
    assert [reading.get("width") for reading in told["readings"]] == [6, None, 8]
    assert told["failed"] == 1
    assert told["readings"][1]["problem"]["code"] == "unreadable_image"
