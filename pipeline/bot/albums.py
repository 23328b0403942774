"""Albums: Telegram sends their pictures one by one, and does not say how many there are."""

import asyncio

from telegram import Message

PICTURES = 10  # at most: core.telegram.org/bots/api#sendmediagroup
QUIET = 1.0  # seconds without a further picture, after which an album is taken to be complete


class Albums:
    """Puts the messages of an album together."""

    def __init__(self, quiet: float = QUIET) -> None:
        self.quiet = quiet
        self.open: dict[tuple[int, str], list[Message]] = {}

    async def gather(self, message: Message) -> list[Message] | None:
        """The messages of this one's album, in order; None when an earlier one has been promised them."""
        if message.media_group_id is None:
            return [message]
        key = message.chat_id, message.media_group_id
        if key in self.open:
            self.open[key].append(message)
            return None
        messages = self.open[key] = [message]
        number = 0
        while number < len(messages) < PICTURES:
            number = len(messages)
            await asyncio.sleep(self.quiet)
        del self.open[key]
        return sorted(messages, key=lambda each: each.message_id)
