"""Files that come with messages."""

from dataclasses import dataclass
from typing import Literal

from telegram import Bot, Message
from telegram.error import BadRequest

from pipeline.bot.answers import FILE_BYTES, Refusal
from pipeline.bot.connection import persist


@dataclass(frozen=True)
class Attachment:
    """A file that came with a message. size: bytes; duration: seconds of a video; both None where it is not told."""

    kind: Literal["image", "video"]
    file_id: str
    size: int | None
    duration: int | None = None

    @classmethod
    def of(cls, message: Message) -> "Attachment | None":
        if message.photo:
            largest = max(message.photo, key=lambda photo: photo.width * photo.height)
            return cls("image", largest.file_id, largest.file_size)
        video = message.animation or message.video or message.video_note
        if video:
            return cls("video", video.file_id, video.file_size, video.to_dict()["duration"])
        document = message.document
        if document:  # what it calls itself is often wrong of images: these are known by their content
            kind: Literal["image", "video"] = "video" if (document.mime_type or "").startswith("video/") else "image"
            return cls(kind, document.file_id, document.file_size)
        return None


async def download(bot: Bot, attachment: Attachment) -> bytes:
    """The attachment's bytes. Raises Refusal when it is larger than Telegram hands out."""
    try:
        file = await bot.get_file(attachment.file_id)
    except BadRequest as error:
        if "too big" in str(error):  # "Bad Request: file is too big"
            raise Refusal("file_too_large", limit=FILE_BYTES >> 20) from None
        raise
    if file.file_size and file.file_size > FILE_BYTES:  # a server of one's own hands out larger ones
        raise Refusal("file_too_large", limit=FILE_BYTES >> 20)
    return bytes(await persist(file.download_as_bytearray))
