"""The bot itself: takes Telegram's updates, has pictures read in threads, and answers."""

import asyncio
import math
import secrets
import signal
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from telegram import BotCommand, Message, Update, User
from telegram.error import BadRequest, Conflict, Forbidden, InvalidToken, NetworkError, RetryAfter, TelegramError
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters
from telegram.request import HTTPXRequest

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.base.rate_limit import RateLimit
from pipeline.bot.albums import Albums
from pipeline.bot.answers import FILE_BYTES, IMAGE_PIXELS, Answer, Refusal, answer_image, answer_video
from pipeline.bot.attachments import Attachment, download
from pipeline.bot.connection import Backlog, Persistence, Polls, reach
from pipeline.bot.replies import reply, send, send_album, sending
from pipeline.bot.texts import DEFAULT, LANGUAGES, language_of, say
from pipeline.bot.users import Users
from pipeline.media.reader import Reader

UNANSWERED = 256  # updates taken from Telegram at once; the others wait there
VIDEO_COST = 5  # pictures that a video counts as in the rate limit
COMMANDS = ("start", "help", "privacy", "forget", "language")

Context = ContextTypes.DEFAULT_TYPE


@dataclass(frozen=True)
class Settings:
    """per_minute: pictures that one user may send. video_seconds: of the longest video. threads: that read pictures.

    api_url: where the Bot API is; None for Telegram's own.
    """

    per_minute: int = 20
    video_seconds: int = 60
    threads: int = 2
    api_url: str | None = None


@dataclass(frozen=True)
class Webhook:
    """Telegram calls `url`; this process answers at listen:port under the URL's path, with `secret` in each call.

    certificate, key: PEM files to speak TLS here; with None a proxy does. The certificate is shown to Telegram, which
    then trusts it although nobody else signed it.
    """

    url: str
    listen: str
    port: int
    secret: str
    certificate: Path | None = None
    key: Path | None = None


class TelegramBot:
    """Reads what users send. `serve` runs it until SIGTERM or SIGINT."""

    def __init__(self, token: str, reader: Reader, users: Users, settings: Settings) -> None:
        self.reader = reader
        self.users = users
        self.settings = settings
        self.rate = RateLimit(settings.per_minute / 60, settings.per_minute)
        self.albums = Albums()
        self.pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="read")
        # Downloads run ahead of reading, but so few that what they hold fits into memory.
        self.places = asyncio.Semaphore(4 * settings.threads)
        self.stopped = asyncio.Event()
        self.stop_reading = threading.Event()
        self.refused = False  # the token, by Telegram
        self.application = self._build(token)

    def _build(self, token: str) -> "Application[Any, Any, Any, Any, Any, Any]":
        builder = (
            Application.builder()
            .token(token)
            .request(
                HTTPXRequest(
                    connect_timeout=10, read_timeout=30, write_timeout=30, media_write_timeout=120, pool_timeout=60
                )
            )
            .get_updates_request(Polls(self._token_refused))
            .rate_limiter(Persistence())
            .concurrent_updates(UNANSWERED)
            .update_queue(Backlog(UNANSWERED))
        )
        if self.settings.api_url:
            root = self.settings.api_url.rstrip("/")
            builder = builder.base_url(f"{root}/bot").base_file_url(f"{root}/file/bot")
        application = builder.build()
        private = filters.ChatType.PRIVATE
        files = filters.Document.IMAGE | filters.Document.VIDEO | (filters.Document.ALL & private)
        media = filters.PHOTO | filters.VIDEO | filters.VIDEO_NOTE | filters.ANIMATION | files
        new = filters.UpdateType.MESSAGE  # not those that are edited
        for command in COMMANDS:
            application.add_handler(CommandHandler(command, getattr(self, f"on_{command}"), new))
        application.add_handler(MessageHandler(new & media, self.on_media))
        application.add_handler(MessageHandler(new & private & ~filters.StatusUpdate.ALL, self.on_other))
        application.add_error_handler(self.on_error)
        return application

    # Answers to commands and to what is no picture

    async def on_start(self, update: Update, context: Context) -> None:
        message, user = _sender(update)
        language = await self._seen(user)
        await reply(message, say(language, "start", name=user.first_name))

    async def on_help(self, update: Update, context: Context) -> None:
        message, user = _sender(update)
        text = say(
            await self._seen(user),
            "help",
            megabytes=FILE_BYTES >> 20,
            megapixels=IMAGE_PIXELS // 1_000_000,
            seconds=self.settings.video_seconds,
            per_minute=self.settings.per_minute,
            video_cost=min(VIDEO_COST, self.settings.per_minute),
        )
        await reply(message, text)

    async def on_privacy(self, update: Update, context: Context) -> None:
        message, user = _sender(update)
        await reply(message, say(await self._seen(user), "privacy"))

    async def on_forget(self, update: Update, context: Context) -> None:
        message, user = _sender(update)
        known = await asyncio.to_thread(self.users.find, user.id)
        language = known.chosen if known and known.chosen else language_of(user.language_code)
        await asyncio.to_thread(self.users.forget, user.id)
        await reply(message, say(language, "forgotten" if known else "not_known"))

    async def on_language(self, update: Update, context: Context) -> None:
        message, user = _sender(update)
        language = await self._seen(user)
        wanted = context.args[0].lower() if context.args else ""
        if wanted in (*LANGUAGES, "auto"):
            await asyncio.to_thread(self.users.choose, user.id, None if wanted == "auto" else wanted)
            language = language_of(user.language_code) if wanted == "auto" else wanted
        choices = [f"/language {tag} – {name}" for tag, name in LANGUAGES.items()]
        choices.append(f"/language auto – {say(language, 'language_of_telegram')}")
        await reply(message, say(language, "language", choices="\n".join(choices)))

    async def on_other(self, update: Update, context: Context) -> None:
        message, user = _sender(update)
        language = await self._seen(user)
        if await self._may_send(message, user, language, 1):
            await reply(message, say(language, "hint"))

    # Pictures and videos

    async def on_media(self, update: Update, context: Context) -> None:
        message, user = _sender(update)
        messages = await self.albums.gather(message)
        if messages is None:
            return
        language = await self._seen(user)
        attachments = [attachment for each in messages if (attachment := Attachment.of(each))]
        cost = sum(VIDEO_COST if each.kind == "video" else 1 for each in attachments)
        if not await self._may_send(message, user, language, cost):
            return
        async with self.places, sending(message, attachments[0].kind):
            answers = [await self._answer(each, language) for each in attachments]
            if len(answers) == 1:
                await send(messages[0], answers[0])
            else:
                await send_album(messages[0], answers, language)

    async def _answer(self, attachment: Attachment, language: str) -> Answer:
        """What was read in one file, or why nothing was."""
        try:
            return await self._read(attachment, language)
        except Refusal as refusal:
            return Answer(say(language, refusal.text, **refusal.values))
        except Exception as error:
            return Answer(say(language, "fault", reference=_report(error)))

    async def _read(self, attachment: Attachment, language: str) -> Answer:
        seconds = self.settings.video_seconds
        if self.stop_reading.is_set():
            raise Refusal("stopping")
        if attachment.size and attachment.size > FILE_BYTES:
            raise Refusal("file_too_large", limit=FILE_BYTES >> 20)
        if attachment.duration and attachment.duration > seconds:
            raise Refusal("video_too_long", limit=seconds)
        data = await download(self.application.bot, attachment)
        loop = asyncio.get_running_loop()
        if attachment.kind == "video":
            return await loop.run_in_executor(
                self.pool, answer_video, self.reader, data, language, seconds, self.stop_reading
            )
        return await loop.run_in_executor(self.pool, answer_image, self.reader, data, language)

    # Users

    async def _seen(self, user: User) -> str:
        """Store that a user wrote; gives the language to answer in."""
        language = user.language_code
        try:
            known = await asyncio.to_thread(self.users.seen, user.id, language)
        except sqlite3.Error as error:  # a full disk shall not keep anybody from an answer
            log.error("error: %s: a user could not be stored: %s", self.users.path, error)
            return language_of(language)
        return known.chosen or language_of(language)

    async def _may_send(self, message: Message, user: User, language: str, pictures: int) -> bool:
        seconds = math.ceil(self.rate.take(user.id, pictures))
        if seconds and self.rate.first_refusal(user.id):
            await reply(message, say(language, "busy", seconds=seconds))
        return not seconds

    # Errors

    async def on_error(self, update: object, context: Context) -> None:
        """Whatever a handler raised; who wrote is told, unless it is them that cannot be reached."""
        error = context.error
        if error is None or isinstance(error, Forbidden):  # the user has blocked the bot
            return
        reference = _report(error)
        if isinstance(update, Update) and update.effective_message:
            user = update.effective_user
            language = language_of(user.language_code) if user else DEFAULT
            with suppress(TelegramError):
                await reply(update.effective_message, say(language, "fault", reference=reference))

    def on_polling_error(self, error: TelegramError) -> None:
        if isinstance(error, Conflict):
            log.error("error: another program takes this bot's updates; stop it, or this one")
        else:
            log.warning("Telegram cannot be reached (%s); trying again", error)

    def _token_refused(self) -> None:
        self.refused = True
        self.stopped.set()

    # Running

    async def serve(self, webhook: Webhook | None) -> None:
        """Take updates, by polling or with a webhook, until SIGTERM or SIGINT; what was begun is finished.

        Raises InputError when Telegram refuses the token or the webhook, or the port cannot be had.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        start = asyncio.create_task(self._start(webhook))
        stopped = asyncio.create_task(self.stopped.wait())
        try:
            await asyncio.wait((start, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not start.done():
                start.cancel()
            with suppress(asyncio.CancelledError):
                await start
            await stopped
        finally:
            stopped.cancel()
            await self._shut_down()
        if self.refused:
            raise _refused_token()

    def _on_signal(self, number: int) -> None:
        asyncio.get_running_loop().remove_signal_handler(number)  # a second one ends the process at once
        self.stop()

    def stop(self) -> None:
        """End serve(): no more updates are taken, and a video that is being read is given up."""
        log.info("stopping; what is being answered is finished")
        self.stop_reading.set()
        self.stopped.set()

    async def _start(self, webhook: Webhook | None) -> None:
        application, updater = self.application, self.application.updater
        assert updater is not None
        try:
            await reach(application.initialize)
            if webhook:
                await reach(lambda: self._listen(webhook))
            else:
                await updater.start_polling(
                    allowed_updates=[Update.MESSAGE], bootstrap_retries=-1, error_callback=self.on_polling_error
                )
        except InvalidToken:
            raise _refused_token() from None
        await application.start()
        how = f"called at {webhook.url}" if webhook else "polling"
        log.info("@%s answers (%s); users known: %d", application.bot.username, how, self.users.count())
        await self._tell_commands()

    async def _listen(self, webhook: Webhook) -> None:
        updater = self.application.updater
        assert updater is not None
        try:
            await updater.start_webhook(
                listen=webhook.listen,
                port=webhook.port,
                url_path=urlsplit(webhook.url).path,
                webhook_url=webhook.url,
                secret_token=webhook.secret,
                cert=webhook.certificate,
                key=webhook.key,
                allowed_updates=[Update.MESSAGE],
            )
        except BadRequest as error:
            raise InputError(f"{webhook.url}: Telegram refuses this webhook: {error}") from None
        except (NetworkError, RetryAfter, InvalidToken):
            raise
        except TelegramError as error:  # the library's, before anything is sent
            raise InputError(f"{webhook.certificate}: {error}; is {webhook.key} its key, and both PEM?") from None
        except OSError as error:
            raise InputError(f"{webhook.listen}:{webhook.port}: {error.strerror}; give another --port") from None

    async def _tell_commands(self) -> None:
        try:
            for language in LANGUAGES:
                commands = [BotCommand(name, say(language, f"command_{name}")) for name in COMMANDS]
                tag = None if language == DEFAULT else language
                await self.application.bot.set_my_commands(commands, language_code=tag)
        except TelegramError as error:
            log.warning("Telegram did not take the list of commands (%s); the bot continues without", error)

    async def _shut_down(self) -> None:
        application, updater = self.application, self.application.updater
        self.stop_reading.set()
        if updater and updater.running:
            with suppress(TelegramError):  # such as that of a token that has been revoked, or of no network
                await updater.stop()
        if application.running:
            await application.stop()
        await application.shutdown()
        self.pool.shutdown()


def _sender(update: Update) -> tuple[Message, User]:
    """The message and its author; every handler here gets only updates that have both."""
    assert update.message is not None
    assert update.message.from_user is not None
    return update.message, update.message.from_user


def _report(error: BaseException) -> str:
    """Log an error with its traceback; gives the number under which it stands there."""
    reference = secrets.token_hex(4)
    log.error("error %s: %s", reference, type(error).__name__, exc_info=error)
    return reference


def _refused_token() -> InputError:
    return InputError("Telegram does not know the bot's token; compare it with what @BotFather says")
