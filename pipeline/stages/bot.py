"""bot: answer Telegram's users; the pictures and videos they send come back with the expressions read in them."""

import argparse
import asyncio
import logging
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.bot.credentials import SECRET_VARIABLE, TOKEN_VARIABLE, read_bot_token, webhook_secret
from pipeline.stages.arguments import PREDICTOR_SETTINGS, add_predictor_arguments, build_predictor, port_number

USERS = Path("data/bot/users.sqlite3")
SETTINGS = (*PREDICTOR_SETTINGS, "threads")  # what the environment may give


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"holds the bot's token (default: the variable {TOKEN_VARIABLE})",
    )
    parser.add_argument(
        "--users",
        type=Path,
        default=USERS,
        metavar="FILE",
        help=f"SQLite database of the users, made where it is missing (default {USERS})",
    )
    add_predictor_arguments(parser)
    parser.add_argument("--threads", type=int, default=2, help="pictures read at once, a core each (default 2)")
    parser.add_argument(
        "--per-minute", type=int, default=20, metavar="N", help="pictures that a user may send in a minute (default 20)"
    )
    parser.add_argument("--video-seconds", type=int, default=60, metavar="N", help="of the longest video (default 60)")
    parser.add_argument("--api-url", metavar="URL", help="a Bot API server of your own (default: Telegram's)")
    webhook = parser.add_argument_group(
        "webhook",
        f"With --webhook Telegram calls the bot; without, the bot asks "
        f"Telegram. {SECRET_VARIABLE} may hold the secret of these calls.",
    )
    webhook.add_argument("--webhook", metavar="URL", help="where Telegram reaches this bot, https://…")
    webhook.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="answer here (default 127.0.0.1)")
    webhook.add_argument("--port", type=port_number, default=8443, help="and at this port (default 8443)")
    webhook.add_argument("--certificate", type=Path, metavar="FILE", help="PEM; speak TLS here, not in a proxy")
    webhook.add_argument("--key", type=Path, metavar="FILE", help="PEM; the certificate's")


def run(args: argparse.Namespace) -> None:
    try:
        from pipeline.bot.telegram_bot import Settings, TelegramBot, Webhook
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("telegram", "tornado", "httpx"):
            raise
        raise InputError("the bot needs python-telegram-bot: pip install 'caffe-expressions[bot]'") from None
    from pipeline.bot.users import Users

    for name, value in (
        ("threads", args.threads),
        ("per-minute", args.per_minute),
        ("video-seconds", args.video_seconds),
    ):
        if value < 1:
            raise InputError(f"--{name} {value}: at least 1 was expected")
    token = read_bot_token(args.token_file)
    webhook = None
    if args.webhook:
        _check_webhook(args)
        webhook = Webhook(args.webhook, args.listen, args.port, webhook_secret(), args.certificate, args.key)
    if args.api_url and not _is_address(args.api_url, ("http", "https")):
        raise InputError(f"--api-url {args.api_url}: an address of the form https://… was expected")
    # What the library below has to say goes where our own messages go.
    logging.getLogger("telegram").handlers = list(log.handlers)
    users = Users(args.users)
    try:
        predictor = build_predictor(args)
        settings = Settings(args.per_minute, args.video_seconds, args.threads, args.api_url)

        async def serve() -> None:
            await TelegramBot(token, predictor, users, settings).serve(webhook)

        asyncio.run(serve())
    finally:
        users.close()


def _check_webhook(args: argparse.Namespace) -> None:
    # Telegram calls https only; a Bot API server of one's own may call http.
    if not _is_address(args.webhook, ("https", "http") if args.api_url else ("https",)):
        raise InputError(f"--webhook {args.webhook}: an address of the form https://example.org/path was expected")
    if bool(args.certificate) != bool(args.key):
        raise InputError("--certificate and --key belong together: give both, or none and let a proxy speak TLS")
    for path in filter(None, (args.certificate, args.key)):
        with open(path, "rb"):  # so that what is missing is named
            pass


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    """Whether it is a URL of one of the schemes that names a host, and a port that there can be."""
    try:
        url = urlsplit(text)
        return url.scheme in schemes and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:  # brackets without an IPv6 address, or a port beyond 65535
        return False
