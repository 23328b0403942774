"""The rate limit: a burst, then as many as come in again, each user by themselves."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def per_minute(number: int, clock: Clock, **options: int) -> RateLimit:
    return RateLimit(number / 60, number, clock, **options)


def test_a_burst_goes_and_the_next_waits_as_long_as_it_is_told() -> None:
    clock = Clock()
    rate = per_minute(20, clock)
    assert [rate.take(1, 1) for _ in range(20)] == [0] * 20
    assert rate.take(1, 1) == pytest.approx(3)
    assert rate.take(1, 4) == pytest.approx(12)
    clock.now += 2.9
    assert rate.take(1, 1) == pytest.approx(0.1)
    clock.now += 1
    assert rate.take(1, 1) == 0


def test_users_do_not_hinder_one_another() -> None:
    rate = per_minute(5, Clock())
    assert rate.take(1, 5) == 0
    assert rate.take(1, 1) > 0
    assert rate.take(2, 5) == 0


def test_what_is_more_than_ever_goes_at_once_costs_everything() -> None:
    clock = Clock()
    rate = per_minute(6, clock)
    assert rate.take(1, 50) == 0
    assert rate.take(1, 1) == pytest.approx(10)
    clock.now += 60
    assert rate.take(1, 50) == 0


def test_a_refusal_is_told_once_until_something_went() -> None:
    clock = Clock()
    rate = per_minute(1, clock)
    rate.take(1, 1)
    for _ in range(2):
        assert rate.take(1, 1) > 0
        assert rate.first_refusal(1)
        assert rate.take(1, 1) > 0
        assert not rate.first_refusal(1)
        clock.now += 60
        assert rate.take(1, 1) == 0


def test_only_the_last_clients_are_remembered() -> None:
    rate = per_minute(1, Clock(), clients=100)
    for client in range(300):
        rate.take(client)
    assert len(rate) == 100
    assert rate.take(299) > 0


def test_threads_take_no_more_than_there_is() -> None:
    rate = RateLimit(1.0, 1000, Clock())
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: rate.take("one"), range(2000)))
    assert waits.count(0.0) == 1000


@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0, 100), st.integers(1, 20)), max_size=60))
def test_no_more_go_than_the_burst_and_what_came_in_since(per_minute: int, sent: list[tuple[float, int]]) -> None:
    clock = Clock()
    rate = RateLimit(per_minute / 60, per_minute, clock)
    gone = 0
    for pause, pictures in sent:
        clock.now += pause
        seconds = rate.take(1, pictures)
        if seconds == 0:
            gone += min(pictures, per_minute)
        assert gone <= per_minute * (1 + (clock.now - 5000) / 60) + 0.001
        if seconds:
            clock.now += seconds
            assert rate.take(1, pictures) == 0
            gone += min(pictures, per_minute)
