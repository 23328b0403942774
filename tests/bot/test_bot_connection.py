"""What is tried again, how often, and what is not; and that updates do not pile up."""

import asyncio

import pytest
from telegram.error import BadRequest, Forbidden, NetworkError, RetryAfter, TelegramError, TimedOut

from pipeline.bot import connection
from pipeline.bot.connection import TRIES, Backlog, persist


class Failing:
    """Fails with one error after the other, then answers."""

    def __init__(self, *errors: TelegramError) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses made, none of which lasts."""
    made: list[float] = []

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(connection.asyncio, "sleep", sleep)
    return made


def test_networks_and_busy_servers_are_tried_again_after_a_pause(pauses: list[float]) -> None:
    call = Failing(NetworkError("down"), RetryAfter(17), TimedOut())
    assert asyncio.run(persist(call)) == "answer"
    assert pauses == [1, 17, 4]


def test_it_gives_up_at_last(pauses: list[float]) -> None:
    call = Failing(*[NetworkError("down")] * 9)
    with pytest.raises(NetworkError, match="down"):
        asyncio.run(persist(call))
    assert call.calls == TRIES


@pytest.mark.parametrize("error", [BadRequest("no such chat"), Forbidden("blocked"), RetryAfter(3600)])
def test_what_trying_again_would_not_mend_is_raised_at_once(error: TelegramError, pauses: list[float]) -> None:
    call = Failing(error)
    with pytest.raises(type(error)):
        asyncio.run(persist(call))
    assert (call.calls, pauses) == (1, [])


def test_a_backlog_takes_no_more_until_something_is_done() -> None:
    async def scenario() -> None:
        backlog = Backlog(2)
        await backlog.put("a")
        await backlog.put("b")
        third = asyncio.create_task(backlog.put("c"))
        assert await backlog.get() == "a"
        await asyncio.sleep(0.01)
        assert not third.done()  # "a" has been taken, but not dealt with
        backlog.task_done()
        await asyncio.wait_for(third, 1)
        assert [await backlog.get(), await backlog.get()] == ["b", "c"]

    asyncio.run(scenario())
