"""Answers on their way out, in the forms and sizes that Telegram takes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from telegram import InputMediaDocument, InputMediaPhoto, InputMediaVideo, Message, ReplyParameters
from telegram.constants import ChatAction
from telegram.error import TelegramError

from pipeline.bot.answers import Answer
from pipeline.bot.texts import say

CAPTION, TEXT = 1024, 4096  # characters: core.telegram.org/bots/api#sendphoto, #sendmessage
ACTION_SECONDS = 4.5  # between two "sending a photo…"; Telegram shows each for 5


async def send(message: Message, answer: Answer) -> None:
    """Answer a message; what is too long for a caption follows the file."""
    if answer.kind is None:
        await reply(message, answer.text)
        return
    caption, rest = (answer.text, "") if len(answer.text) <= CAPTION else ("", answer.text)
    options: dict[str, Any] = {"filename": answer.name, "reply_parameters": _to(message)}
    if caption:
        options["caption"] = caption
    if answer.kind == "photo":
        await message.reply_photo(answer.file, **options)
    elif answer.kind == "document":
        await message.reply_document(answer.file, **options)
    else:
        await message.reply_video(
            answer.file,
            width=answer.width,
            height=answer.height,
            duration=answer.duration,
            supports_streaming=True,
            **options,
        )
    if rest:
        await reply(message, rest)


async def send_album(message: Message, answers: Sequence[Answer], language: str) -> None:
    """All that is to be seen as one album, in order; all texts as its caption or, where too long, after it."""
    text = "\n\n".join(
        say(language, "in_album", number=number, text=answer.text) for number, answer in enumerate(answers, 1)
    )
    # Telegram takes documents into albums of their own only.
    albums = [
        [answer for answer in answers if answer.kind in ("photo", "video")],
        [answer for answer in answers if answer.kind == "document"],
    ]
    for album in filter(None, albums):
        caption = text if len(text) <= CAPTION else ""
        if len(album) == 1:
            (only,) = album
            await send(message, replace(only, text=caption))
        else:
            media = [_media(answer, (caption or None) if number == 0 else None) for number, answer in enumerate(album)]
            await message.reply_media_group(media, reply_parameters=_to(message))
        text = "" if caption else text
    if text:
        await reply(message, text)


async def reply(message: Message, text: str) -> None:
    """Answer a message with a text, in as many parts as it takes."""
    for part in split(text, TEXT):
        await message.reply_text(part, reply_parameters=_to(message))


@asynccontextmanager
async def sending(message: Message, kind: str) -> AsyncIterator[None]:
    """Show the user that an answer is being made."""
    action = ChatAction.UPLOAD_VIDEO if kind == "video" else ChatAction.UPLOAD_PHOTO

    async def show() -> None:
        while True:
            with suppress(TelegramError):  # it is but a courtesy
                await message.reply_chat_action(action)
            await asyncio.sleep(ACTION_SECONDS)

    task = asyncio.create_task(show())
    try:
        yield
    finally:
        task.cancel()


def split(text: str, limit: int) -> list[str]:
    """The text in parts of at most `limit` characters, cut between lines where there are any."""
    parts = []
    while len(text) > limit:
        cut = text.rfind("\n", 1, limit + 1)
        cut = limit if cut < 0 else cut
        parts.append(text[:cut])
        text = text[cut:].lstrip("\n")
    return [*parts, text] if text else parts


def _to(message: Message) -> ReplyParameters:
    return ReplyParameters(message.message_id, allow_sending_without_reply=True)


def _media(answer: Answer, caption: str | None) -> InputMediaPhoto | InputMediaVideo | InputMediaDocument:
    if answer.kind == "photo":
        return InputMediaPhoto(answer.file, caption, filename=answer.name)
    if answer.kind == "document":
        return InputMediaDocument(answer.file, caption, filename=answer.name)
    return InputMediaVideo(
        answer.file,
        caption,
        answer.width,
        answer.height,
        answer.duration,
        filename=answer.name,
        supports_streaming=True,
    )
