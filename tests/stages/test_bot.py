"""bot: the real process with the model that ships, by polling and by webhook, against Telegram's HTTP."""

import io
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import av
import numpy as np
import pytest
from helpers.portraits import portrait_file
from helpers.telegram_server import TOKEN, TelegramServer
from PIL import Image

from pipeline.bot.texts import say

ROOT = Path(__file__).parents[2]


class BotProcess:
    """python -m pipeline bot, with its messages in a file; ended by SIGTERM."""

    def __init__(self, server: TelegramServer, folder: Path, *arguments: object) -> None:
        self.server = server
        self.log = folder / "log"
        self.users = folder / "not yet there/users.sqlite3"
        self.arguments = ("--api-url", server.url, "--users", self.users, *arguments)

    def __enter__(self) -> Self:
        environment = os.environ | {"TELEGRAM_BOT_TOKEN": TOKEN}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "bot", *map(str, self.arguments)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        for _ in range(600):
            if "@faces_bot answers" in self.log.read_text() or self.process.poll() is not None:
                break
            time.sleep(0.05)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def server() -> Iterator[TelegramServer]:
    with TelegramServer() as server:
        yield server


@pytest.fixture(scope="module")
def bot(server: TelegramServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BotProcess]:
    with BotProcess(server, tmp_path_factory.mktemp("bot"), "--per-minute", 1000) as bot:
        yield bot


@pytest.fixture(scope="module")
def portrait() -> bytes:
    """A JPEG of one face, 512x600: it comes with matplotlib."""
    return portrait_file()


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def bad_command(environment: Mapping[str, str], *arguments: object) -> str:
    """What the command says when it ends with status 1."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "bot", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={name: text for name, text in os.environ.items() if not name.startswith("TELEGRAM_")} | dict(environment),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert TOKEN not in done.stderr
    return done.stderr


def test_a_photo_of_a_face_comes_back_with_its_box_and_label(
    server: TelegramServer, bot: BotProcess, portrait: bytes
) -> None:
    answer = server.answer(server.photo(7, portrait))
    assert answer.method == "sendPhoto"
    assert re.fullmatch(r"1\. (uncertain, perhaps )?[a-z]+(, \d+%| \(\d+%\))( – .*)?", answer.text)
    drawn = Image.open(io.BytesIO(answer.file))
    before = Image.open(io.BytesIO(portrait)).convert("RGB")
    assert drawn.size == before.size
    changed = abs(np.asarray(drawn, dtype=int) - np.asarray(before, dtype=int)).max(axis=2) > 40
    rows, columns = np.nonzero(changed)
    # MTCNN's box of this face, with the label above it and the emoji at its lower right corner.
    assert (columns.min(), rows.min()) > (120, 40)
    assert (columns.max(), rows.max()) < (450, 420)


def test_a_document_is_read_uncompressed_in_the_users_language(
    server: TelegramServer, bot: BotProcess, portrait: bytes
) -> None:
    data = png(Image.open(io.BytesIO(portrait)))
    answer = server.answer(server.document(8, data, "face.png", "image/png", language="de"))
    assert answer.method == "sendPhoto"
    assert re.search(r"\d+ %", answer.text)


def test_noise_a_damaged_file_text_and_a_bomb_are_told_apart(
    server: TelegramServer, bot: BotProcess, portrait: bytes
) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    assert server.answer(server.photo(7, png(noise))).text == say("en", "no_face")
    assert server.answer(server.photo(7, portrait[: len(portrait) // 2])).text == say("en", "not_an_image")
    text = server.document(7, b"Dear all, this is not a picture.\n" * 30, "holiday.jpg", "image/jpeg")
    assert server.answer(text).text == say("en", "not_an_image")
    bomb = png(Image.new("L", (10_000, 6_000), 90))
    assert server.answer(server.document(7, bomb, "plain.png", "image/png")).text == say(
        "en", "image_too_large", limit=50
    )


def test_a_short_video_comes_back_with_boxes(server: TelegramServer, bot: BotProcess, portrait: bytes) -> None:
    face = np.asarray(Image.open(io.BytesIO(portrait)).convert("RGB"))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 480, 600, "yuv420p"
        for shift in range(0, 30, 3):
            image = np.ascontiguousarray(face[:, shift : shift + 480])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    answer = server.answer(server.video(7, file.getvalue(), duration=1, kind="video_note"))
    assert answer.method == "sendVideo"
    assert re.fullmatch(r"1\. mostly \w+ \(\d+% of the time\)", answer.text)
    with av.open(io.BytesIO(answer.file), "r") as container:
        frames = list(container.decode(video=0))
    assert (len(frames), frames[0].width, frames[0].height) == (10, 480, 600)


def test_an_album_is_one_answer(server: TelegramServer, bot: BotProcess, portrait: bytes) -> None:
    first = server.photo(7, portrait, media_group_id="x")
    server.photo(7, portrait, media_group_id="x")
    answer = server.answer(first)
    assert answer.method == "sendMediaGroup"
    assert answer.parameters["media"][0]["caption"].startswith("Picture 1:\n1. ")


def test_users_are_stored_and_neither_the_log_nor_the_command_line_holds_the_token(
    server: TelegramServer, bot: BotProcess
) -> None:
    server.answer(server.text(70, "/start"))
    server.answer(server.text(70, "/start"))
    with sqlite3.connect(bot.users) as database:
        assert database.execute("SELECT messages FROM users WHERE id = 70").fetchall() == [(2,)]
    database.close()
    assert TOKEN not in bot.log.read_text()
    assert TOKEN.encode() not in Path(f"/proc/{bot.process.pid}/cmdline").read_bytes()


def test_sigterm_ends_it_in_good_order(server: TelegramServer, bot: BotProcess) -> None:
    assert bot.stop() == 0
    lines = bot.log.read_text().splitlines()
    assert lines[0].startswith("@faces_bot answers (polling); users known: 0")
    assert lines[1:] == ["stopping; what is being answered is finished"]


def test_telegram_calls_the_webhook_and_nobody_else_may(tmp_path: Path, portrait: bytes) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/telegram/updates"
    with TelegramServer() as server:
        token = tmp_path / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        with BotProcess(server, tmp_path, "--webhook", url, "--port", port, "--token-file", token) as bot:
            assert server.webhook["url"] == url
            assert server.webhook["allowed_updates"] == ["message"]
            assert len(server.webhook["secret_token"]) >= 32
            assert server.answer(server.photo(7, portrait)).method == "sendPhoto"
            assert server.call_webhook({"update_id": 1}, "a guess") == 403
            assert server.call_webhook({"update_id": 1}, "") == 403
            assert server.webhook["secret_token"] not in bot.log.read_text()
            assert server.polls == 0
            assert bot.stop(signal.SIGINT) == 0


def test_what_is_wrong_at_the_start_is_one_line(tmp_path: Path) -> None:
    token = {"TELEGRAM_BOT_TOKEN": TOKEN}
    users = ("--users", tmp_path / "users")
    assert bad_command({}).startswith("error: no token: set the variable TELEGRAM_BOT_TOKEN or give --token-file")
    assert "--threads 0: at least 1" in bad_command(token, "--threads", 0)
    assert "https://example.org/path was expected" in bad_command(token, "--webhook", "http://example.org/x")
    assert "--webhook https://[e.org/x: an address of the form" in bad_command(token, "--webhook", "https://[e.org/x")
    assert "--api-url http://[: an address of the form" in bad_command(token, "--api-url", "http://[")
    assert "belong together" in bad_command(token, "--webhook", "https://example.org/x", "--key", __file__)
    (tmp_path / "users").write_bytes(zlib.compress(bytes(range(256)) * 99))
    errors = bad_command(token, *users, "--api-url", "http://127.0.0.1:9")
    assert re.fullmatch(r"error: .*/users: cannot be used as the bot's database \(.*\); name another file\n", errors)


def test_a_token_that_telegram_refuses_and_a_port_that_is_taken_are_one_line(tmp_path: Path) -> None:
    with TelegramServer() as server:
        common = ("--users", tmp_path / "users", "--api-url", server.url)
        other = {"TELEGRAM_BOT_TOKEN": TOKEN[:-3] + "abc"}
        assert bad_command(other, *common) == (
            "error: Telegram does not know the bot's token; compare it with what @BotFather says\n"
        )
        port = server.http.server_port
        errors = bad_command({"TELEGRAM_BOT_TOKEN": TOKEN}, *common, "--webhook", server.url, "--port", port)
        assert errors == f"error: 127.0.0.1:{port}: Address already in use; give another --port\n"
        pem = tmp_path / "tls.pem"
        pem.write_text("-----BEGIN")
        files = ("--certificate", pem, "--key", pem)
        errors = bad_command({"TELEGRAM_BOT_TOKEN": TOKEN}, *common, "--webhook", server.url, *files)
        assert errors == f"error: {pem}: Invalid SSL Certificate; is {pem} its key, and both PEM?\n"


def test_a_missing_library_is_one_line_with_the_command_that_brings_it(tmp_path: Path) -> None:
    (tmp_path / "telegram").mkdir()
    (tmp_path / "telegram/__init__.py").write_text("raise ModuleNotFoundError(name='telegram')")
    errors = bad_command({"PYTHONPATH": str(tmp_path), "TELEGRAM_BOT_TOKEN": TOKEN})
    assert errors == "error: the bot needs python-telegram-bot: pip install 'caffe-expressions[bot]'\n"
