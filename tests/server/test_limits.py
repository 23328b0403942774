"""Limits: what a client may take, what is held in memory, what waits; with a clock of the test's own."""

import asyncio
import threading

import pytest
from starlette.requests import HTTPConnection

from pipeline.server.limits import BodyMemory, Workers, asker, client_of
from pipeline.server.problems import Problem


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
        (None, ""),
    ],
)
def test_a_client_is_an_address_or_a_household_of_them(address: str | None, client: str) -> None:
    assert client_of(address) == client


@pytest.mark.parametrize(
    ("client", "asked_by"),
    [(("2001:db8:1:2::9", 50000), "2001:db8:1:2::/64"), (("203.0.113.7", 1), "203.0.113.7"), (None, "")],
)
def test_who_asks_is_told_by_the_connections_address(client: tuple[str, int] | None, asked_by: str) -> None:
    assert asker(HTTPConnection({"type": "http", "client": client, "headers": []})) == asked_by


def test_bodies_may_fill_a_limit_and_not_a_byte_more() -> None:
    memory = BodyMemory(100, 60)
    with memory.body("a") as hold, memory.body("b") as other:
        hold(60)
        for more, retry in ((hold, 1), (other, 41)):
            with pytest.raises(Problem) as refused:
                more(retry)
            assert (refused.value.code, refused.value.headers) == ("busy", {"Retry-After": "2"})
        other(40)


def test_bodies_are_let_go_of_even_after_an_error() -> None:
    memory = BodyMemory(100, 90)
    with memory.body("a") as hold:
        hold(60)
        with memory.body("b") as other:
            other(30)
            with pytest.raises(Problem, match="sent at this moment"):
                other(30)
        assert memory.held == {"a": 60}
    with pytest.raises(ZeroDivisionError), memory.body("a") as hold:
        hold(1 // 0)
    assert memory.held == {}


def test_one_client_cannot_hold_all_the_memory() -> None:
    memory = BodyMemory(100, 40)
    with memory.body("a") as hold, memory.body("a") as again, memory.body("b") as other:
        hold(30)
        with pytest.raises(Problem, match="Each client may send 40 bytes at once"):
            again(20)
        other(40)


def test_calls_beyond_the_queue_are_refused_and_expected_ones_are_not() -> None:
    gate = threading.Event()
    workers = Workers(1, 1)

    async def calls() -> None:
        first = [asyncio.create_task(workers.run(gate.wait, 10)) for _ in range(2)]
        await asyncio.sleep(0)
        assert workers.full
        with pytest.raises(Problem) as refused:
            await workers.run(gate.wait, 10)
        assert (refused.value.code, refused.value.headers) == ("busy", {"Retry-After": "2"})
        expected = asyncio.create_task(workers.run(pow, 7, 2, expected=True))
        await asyncio.sleep(0)
        gate.set()
        assert await expected == 49
        assert await asyncio.gather(*first) == [True, True]

    asyncio.run(calls())
    workers.close()
    assert workers.pending == 0


def test_a_call_that_nobody_awaits_is_not_begun() -> None:
    gate = threading.Event()
    workers = Workers(1, 5)
    begun: list[int] = []

    async def calls() -> None:
        first = asyncio.create_task(workers.run(gate.wait, 10))
        second = asyncio.create_task(workers.run(begun.append, 1))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.sleep(0.01)
        gate.set()
        await first

    asyncio.run(calls())
    workers.pool.shutdown()
    assert begun == []
    assert workers.pending == 0


def test_closing_waits_for_no_call_and_begins_no_other() -> None:
    gate = threading.Event()
    begun: list[int] = []
    told: list[int] = []
    workers = Workers(1, 5, told.append)

    async def calls() -> None:
        first = asyncio.create_task(workers.run(gate.wait, 10))
        second = asyncio.create_task(workers.run(begun.append, 1))
        await asyncio.sleep(0.01)
        assert told == [1, 2]
        workers.close()
        assert told == [1, 2, 1]  # the first runs on, the second is cancelled
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        await first

    asyncio.run(calls())
    workers.pool.shutdown()
    assert begun == []
    assert told == [1, 2, 1, 0]
