"""What the bot's tests share."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.bot_stand_ins import BrightnessReader
from helpers.portraits import portrait_file
from helpers.telegram_server import TOKEN, TelegramServer

from pipeline.bot import connection
from pipeline.bot.telegram_bot import Settings, TelegramBot, Webhook
from pipeline.bot.users import Users
from pipeline.media.reader import Reader


@pytest.fixture(scope="session")
def portrait() -> bytes:
    """A JPEG of one face, 512x600: it comes with matplotlib."""
    return portrait_file()


@pytest.fixture
def server() -> Iterator[TelegramServer]:
    with TelegramServer() as server:
        yield server


@pytest.fixture
def users(tmp_path: Path) -> Iterator[Users]:
    users = Users(tmp_path / "bot/users.sqlite3")
    yield users
    users.close()


@pytest.fixture
def plain_records() -> Iterator[None]:
    """Puts the logging of secrets back to what it was."""
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)


@pytest.fixture
def run_bot(server: TelegramServer, users: Users, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a bot of this process while `scenario(bot)` plays in another thread."""
    monkeypatch.setattr(connection, "PAUSE", 0.05)

    def run(
        scenario: Callable[[TelegramBot], None],
        reader: Reader | None = None,
        webhook: Webhook | None = None,
        **settings: int,
    ) -> None:
        async def both() -> None:
            chosen = Settings(api_url=server.url, **{"per_minute": 1000, **settings})
            bot = TelegramBot(TOKEN, reader or BrightnessReader(), users, chosen)
            bot.albums.quiet = 0.1
            serving = asyncio.create_task(bot.serve(webhook))
            try:
                await asyncio.to_thread(scenario, bot)
            finally:
                bot.stop()
                await serving

        asyncio.run(both())

    return run
