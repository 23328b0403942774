"""The bot's secrets: read from the environment or a file, and kept out of every log."""

import logging
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Any

from pipeline.base.console import log
from pipeline.base.errors import InputError

TOKEN_VARIABLE = "TELEGRAM_BOT_TOKEN"
SECRET_VARIABLE = "TELEGRAM_WEBHOOK_SECRET"
TOKEN = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{20,100}")  # the bot's id, and what BotFather made up
SECRET = re.compile(r"[A-Za-z0-9_-]{1,256}")  # as setWebhook has it: core.telegram.org/bots/api#setwebhook
MAX_FILE = 4096  # bytes
HIDDEN = "[hidden]"


def read_bot_token(path: Path | None) -> str:
    """The bot's token: from the file `path` or, with None, from the variable TELEGRAM_BOT_TOKEN, which is then unset.

    Raises InputError, which does not repeat what was read, where there is none or it does not look like a token.
    """
    if path is None:
        text = os.environ.pop(TOKEN_VARIABLE, "").strip()
        source = TOKEN_VARIABLE
        if not text:
            raise InputError(
                f"no token: set the variable {TOKEN_VARIABLE} or give --token-file; @BotFather hands tokens out"
            )
    else:
        with open(path, "rb") as file:
            text = file.read(MAX_FILE).decode("latin-1").strip()
            mode = os.fstat(file.fileno()).st_mode
        source = str(path)
        if mode & (stat.S_IRGRP | stat.S_IROTH):
            log.warning("%s: others may read this token; run chmod 600 on it", path)
    if not TOKEN.fullmatch(text):
        raise InputError(f"{source}: holds no token of the form 123456789:ABC-DEF… that @BotFather hands out")
    hide_token(text)
    return text


def webhook_secret() -> str:
    """What Telegram repeats in every call of the webhook: from TELEGRAM_WEBHOOK_SECRET, or made up for this run."""
    text = os.environ.pop(SECRET_VARIABLE, "").strip() or secrets.token_urlsafe(32)
    if not SECRET.fullmatch(text):
        raise InputError(f"{SECRET_VARIABLE}: holds other characters than A-Z a-z 0-9 _ -, or more than 256 of them")
    hide_token(text)
    return text


def hide_token(secret: str) -> None:
    """Blank `secret` out of everything that this process logs from now on, at any level, in any library.

    The libraries below the bot log addresses and errors that hold the token.
    """
    make = logging.getLogRecordFactory()
    found = re.compile(re.escape(secret), re.IGNORECASE)  # some of them change the case of what Telegram said

    def make_without_secret(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # a library's slip, which shall not end what it tells of
            message = f"{record.msg} {record.args}"
            record.msg, record.args = message, ()
        if found.search(message):
            record.msg, record.args = found.sub(HIDDEN, message), ()
        if record.exc_info:  # as text already, so that nobody writes the traceback out anew
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        if record.exc_text:
            record.exc_text = found.sub(HIDDEN, record.exc_text)
        return record

    logging.setLogRecordFactory(make_without_secret)
