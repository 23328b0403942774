"""Clients that send too much, too slowly or not at all, and many of them: each is answered, and the server goes on."""

import asyncio
import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
from helpers.running_server import MANY, Painted, Running, picture

from pipeline.server.limits import Limits

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
    running = start(painted, Limits(head_seconds=0.5))
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


@pytest.mark.parametrize("limits", [MANY, Limits()], ids=["in one queue", "with the usual limits"])
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
