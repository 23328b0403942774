"""What keeps the bot in touch with Telegram when the network, Telegram or the token fails."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from telegram.error import BadRequest, NetworkError, RetryAfter
from telegram.ext import BaseRateLimiter
from telegram.request import HTTPXRequest

from pipeline.base.console import log

# The library's durations are timedeltas, as they will be anyhow; it warns of that at each numeric one.
os.environ.setdefault("PTB_TIMEDELTA", "1")

TRIES = 4  # of a request that the network or Telegram fails
PAUSE = 1.0  # seconds before the second of them; each further one takes twice as long
LONGEST_WAIT = 60  # seconds, of those that Telegram may ask for before a request is tried again


async def reach(call: Callable[[], Awaitable[None]]) -> None:
    """Call until the network lets it through, with longer and longer pauses of up to half a minute."""
    pause = PAUSE
    while True:
        try:
            return await call()
        except BadRequest:
            raise
        except (NetworkError, RetryAfter) as error:
            log.warning("Telegram cannot be reached (%s); trying again in %d s", error, pause)
        await asyncio.sleep(pause)
        pause = min(30.0, 2 * pause)


async def persist(call: Callable[[], Awaitable[Any]]) -> Any:
    """Call again when the network or Telegram fails, as often as TRIES has it, after as long as Telegram asks for."""
    for number in range(1, TRIES):
        try:
            return await call()
        except BadRequest:
            raise
        except RetryAfter as error:
            seconds = _seconds(error)
            if seconds > LONGEST_WAIT:
                raise
            await asyncio.sleep(seconds)
        except NetworkError:
            await asyncio.sleep(PAUSE * 2 ** (number - 1))
    return await call()


def _seconds(error: RetryAfter) -> float:
    wait = error.retry_after
    return wait if isinstance(wait, int) else wait.total_seconds()


class Persistence(BaseRateLimiter[Any]):
    """Has every request tried again that the network or Telegram fails, but for those that only please."""

    async def initialize(self) -> None:
        pass

    async def shutdown(self) -> None:
        pass

    async def process_request(  # noqa: PLR0917 (the library's)
        self,
        callback: Callable[..., Awaitable[Any]],
        args: Any,
        kwargs: dict[str, Any],
        endpoint: str,
        data: dict[str, Any],
        rate_limit_args: Any,
    ) -> Any:
        # setWebhook and getMe are called when the bot starts, which is patient itself.
        if endpoint in ("sendChatAction", "getMe", "setWebhook"):
            return await callback(*args, **kwargs)
        return await persist(lambda: callback(*args, **kwargs))


class Polls(HTTPXRequest):
    """Asks for updates, and tells when the token has been revoked meanwhile, after which the library asks no more."""

    def __init__(self, refused: Callable[[], None]) -> None:
        super().__init__(connection_pool_size=1)
        self.refused = refused

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        status, body = await super().do_request(*args, **kwargs)
        if status in (401, 404):
            self.refused()
        return status, body


class Backlog(asyncio.Queue[Any]):
    """A queue that takes no more while so many of its items have not been dealt with to the end.

    The library takes updates off its queue at once and lets each wait in a task of its own, so that a queue's size
    would not bound them.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.places = asyncio.Semaphore(limit)

    async def put(self, item: Any) -> None:
        await self.places.acquire()
        await super().put(item)

    def task_done(self) -> None:
        super().task_done()
        self.places.release()
