"""The rate limit: a burst, then as many as come in again, each user by themselves."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.bot import rate_limit
from pipeline.bot.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 5000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_goes_and_the_next_waits_as_long_as_it_is_told() -> None:
    clock = Clock()
    rate = RateLimit(20, clock)
    assert [rate.take(1, 1) for _ in range(20)] == [0] * 20
    assert rate.take(1, 1) == 3
    assert rate.take(1, 4) == 12
    clock.now += 2.9
    assert rate.take(1, 1) == 1
    clock.now += 1
    assert rate.take(1, 1) == 0


def test_users_do_not_hinder_one_another() -> None:
    rate = RateLimit(5, Clock())
    assert rate.take(1, 5) == 0
    assert rate.take(1, 1) > 0
    assert rate.take(2, 5) == 0


def test_what_is_more_than_ever_goes_at_once_costs_everything() -> None:
    clock = Clock()
    rate = RateLimit(6, clock)
    assert rate.take(1, 50) == 0
    assert rate.take(1, 1) == 10
    clock.now += 60
    assert rate.take(1, 50) == 0


def test_a_refusal_is_told_once_until_something_went() -> None:
    clock = Clock()
    rate = RateLimit(1, clock)
    rate.take(1, 1)
    for _ in range(2):
        assert rate.take(1, 1) > 0
        assert rate.first_refusal(1)
        assert rate.take(1, 1) > 0
        assert not rate.first_refusal(1)
        clock.now += 60
        assert rate.take(1, 1) == 0


def test_only_the_last_users_are_remembered() -> None:
    rate = RateLimit(1, Clock())
    for user in range(3 * rate_limit.MAX_USERS):
        rate.take(user, 1)
    assert len(rate.buckets) == rate_limit.MAX_USERS
    assert rate.take(3 * rate_limit.MAX_USERS - 1, 1) > 0


@given(st.integers(1, 50), st.lists(st.tuples(st.floats(0, 100), st.integers(1, 20)), max_size=60))
def test_no_more_go_than_the_burst_and_what_came_in_since(per_minute: int, sent: list[tuple[float, int]]) -> None:
    clock = Clock()
    rate = RateLimit(per_minute, clock)
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
