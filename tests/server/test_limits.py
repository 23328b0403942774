"""Limits: what a client may take, what is held in memory, what waits; with a clock of the test's own."""

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.server.limits import Memory, RateLimit, Workers, client_of
from pipeline.server.problems import Problem


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_taken_at_once_and_the_rest_at_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(2.0, 5, clock)
    assert [limit.take("a") for _ in range(5)] == [0.0] * 5
    assert limit.take("a") == pytest.approx(0.5)
    assert limit.take("b") == 0.0, "another client has a bucket of its own"
    clock.now += 0.5
    assert limit.take("a") == 0.0
    assert limit.take("a", 4) == pytest.approx(2.0)


def test_the_wait_is_told_in_whole_seconds() -> None:
    limit = RateLimit(0.4, 1, Clock())
    limit.charge("a")
    with pytest.raises(Problem) as refused:
        limit.charge("a")
    assert (refused.value.code, refused.value.headers["Retry-After"]) == ("too_often", "3")


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 20)), max_size=40))
def test_no_order_of_requests_takes_more_than_the_burst_and_the_rate(requests: list[tuple[float, int]]) -> None:
    clock = Clock()
    limit = RateLimit(3.0, 10, clock)
    taken = 0
    for pause, number in requests:
        clock.now += pause
        if not limit.take("a", number):
            taken += number
    assert taken <= 10 + 3.0 * (clock.now - 100.0) + 1e-6


def test_the_table_of_clients_is_bounded() -> None:
    limit = RateLimit(1.0, 1, Clock(), clients=100)
    for number in range(1000):
        limit.take(str(number))
    assert len(limit._buckets) == 100
    assert limit.take("999") > 0, "the latest are kept"


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


def test_bodies_are_let_go_of_even_after_an_error() -> None:
    memory = Memory(100)
    with memory.body() as hold:
        hold(60)
        with memory.body() as other:
            other(30)
            with pytest.raises(Problem, match="sent at this moment"):
                other(30)
        assert memory.held == 60
    with pytest.raises(ZeroDivisionError), memory.body() as hold:
        hold(1 // 0)
    assert memory.held == 0


def test_calls_beyond_the_queue_are_refused_and_expected_ones_are_not() -> None:
    gate = threading.Event()
    workers = Workers(1, 1)

    async def calls() -> None:
        first = [asyncio.create_task(workers.run(gate.wait, 10)) for _ in range(2)]
        await asyncio.sleep(0)
        assert workers.full
        with pytest.raises(Problem) as refused:
            await workers.run(gate.wait, 10)
        assert (refused.value.code, "Retry-After" in refused.value.headers) == ("busy", True)
        expected = asyncio.create_task(workers.run(lambda: 7, expected=True))
        await asyncio.sleep(0)
        gate.set()
        assert await expected == 7
        assert await asyncio.gather(*first) == [True, True]

    asyncio.run(calls())
    workers.close()
    assert workers.pending == 0


def test_a_call_that_nobody_awaits_is_not_begun() -> None:
    gate = threading.Event()
    workers = Workers(1, 5)
    begun = []

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
