"""The bot against Telegram's HTTP, in this process: every kind of message and every kind of failure."""

import io
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.bot_stand_ins import BrightnessReader, jpeg, video
from helpers.telegram_server import TOKEN, Failure, TelegramServer
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.bot import answers, replies
from pipeline.bot.replies import split
from pipeline.bot.telegram_bot import TelegramBot
from pipeline.bot.texts import say
from pipeline.bot.users import Users
from pipeline.media.frames import Frame
from pipeline.readings import Reading

PHOTO = jpeg(np.full((240, 320, 3), 128, np.uint8))
DARK = jpeg(np.full((240, 320, 3), 9, np.uint8))
FACES = "1. uncertain, perhaps sad (45%) – very small, turned away\n2. happy, 93%"

Run = Callable[..., None]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come about")


class BrokenReader(BrightnessReader):
    def read(self, frames: Sequence[Frame]) -> list[Reading]:
        raise RuntimeError("the model has a hole in it")


def test_start_stores_the_user_once_and_commands_are_told(server: TelegramServer, users: Users, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        for _ in range(2):
            assert server.answer(server.text(7, "/start")).text == say("en", "start", name="Ann")
        server.answer(server.text(8, "/start", language="de-AT"))
        assert users.count() == 2
        user = users.find(7)
        assert user is not None
        assert (user.messages, user.language) == (2, "en")
        told = server.wait(lambda: [c for c in server.calls if c.method == "setMyCommands"][1:], "tell its commands")
        assert told[0].parameters["language_code"] == "de"
        assert [each["command"] for each in told[0].parameters["commands"]] == [
            "start",
            "help",
            "privacy",
            "forget",
            "language",
        ]

    run_bot(scenario)


def test_help_tells_the_limits_that_hold_and_privacy_what_is_kept(server: TelegramServer, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        text = server.answer(server.text(7, "/help")).text
        assert "20 MB" in text
        assert "50 megapixels" in text
        assert "33 s" in text
        assert "444 pictures a minute" in text
        assert "An expression is not an emotion" in text
        assert "Ein Ausdruck ist kein Gefühl" in server.answer(server.text(7, "/help", language="de")).text
        assert server.answer(server.text(7, "/privacy")).text == say("en", "privacy")

    run_bot(scenario, video_seconds=33, per_minute=444)


def test_who_wants_to_be_forgotten_is(server: TelegramServer, users: Users, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        server.answer(server.text(7, "/start"))
        assert server.answer(server.text(7, "/forget")).text == say("en", "forgotten")
        assert users.find(7) is None
        assert server.answer(server.text(7, "/forget", language="de")).text == say("de", "not_known")
        assert users.find(7) is None

    run_bot(scenario)


def test_the_language_is_telegrams_until_one_is_chosen(server: TelegramServer, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        assert server.answer(server.text(7, "hello", language="de")).text == say("de", "hint")
        assert server.answer(server.text(7, "hello", language="pt-BR")).text == say("en", "hint")
        assert server.answer(server.text(7, "hello", language=None)).text == say("en", "hint")
        assert "Ich spreche Deutsch" in server.answer(server.text(7, "/language DE")).text
        assert server.answer(server.photo(7, PHOTO)).text.endswith("2. fröhlich, 93 %")
        assert "/language en – English" in server.answer(server.text(7, "/language klingon")).text
        assert "I speak English" in server.answer(server.text(7, "/language auto")).text
        assert server.answer(server.text(7, "hello")).text == say("en", "hint")

    run_bot(scenario)


def test_what_is_no_picture_gets_a_hint(server: TelegramServer, run_bot: Run) -> None:
    sticker = {
        "file_id": "s",
        "file_unique_id": "s",
        "width": 9,
        "height": 9,
        "is_animated": False,
        "is_video": False,
        "type": "regular",
    }

    def scenario(bot: TelegramBot) -> None:
        for message in (
            server.text(7, "what is this?"),
            server.text(7, "/unknown"),
            server.send(7, sticker=sticker),
            server.send(7, voice=server.file(b"sound", duration=3)),
            server.send(7, location={"latitude": 1.0, "longitude": 2.0}),
        ):
            assert server.answer(message).text == say("en", "hint")

    run_bot(scenario)


def test_in_groups_only_pictures_and_commands_are_answered(server: TelegramServer, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        silent = [
            server.text(7, "a chat among people", chat=-5),
            server.document(7, b"minutes", "minutes.pdf", "application/pdf", chat=-5),
            server.send(7, chat=-5, new_chat_title="Others"),
        ]
        assert server.answer(server.photo(7, PHOTO, chat=-5)).parameters["chat_id"] == -5
        assert server.answer(server.text(7, "/help", chat=-5)).parameters["chat_id"] == -5
        assert not [call for call in server.calls if call.answers in silent]

    run_bot(scenario)


def test_edited_messages_and_service_messages_are_left_alone(server: TelegramServer, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        server.send(7, pinned_message=None, new_chat_title="x")
        last = server.text(7, "hello")
        server.answer(last)
        assert {call.answers for call in server.calls if call.method == "sendMessage"} == {last}

    run_bot(scenario)


def test_a_photo_comes_back_drawn_with_a_line_for_each_face(server: TelegramServer, run_bot: Run) -> None:
    reader = BrightnessReader()

    def scenario(bot: TelegramBot) -> None:
        answer = server.answer(server.photo(7, PHOTO))
        assert (answer.method, answer.text) == ("sendPhoto", FACES)
        drawn = Image.open(io.BytesIO(answer.file))
        assert drawn.format == "JPEG"
        assert (abs(np.asarray(drawn, dtype=int) - 128).max(axis=2) > 60).mean() > 0.02
        assert reader.sizes == [(320, 240)]  # the largest of the photo's sizes was fetched
        assert server.actions >= 1

    run_bot(scenario, reader)


@pytest.mark.parametrize(
    ("name", "mime"),
    [("p.jpg", "image/jpeg"), ("p.bin", "application/octet-stream"), ("p", None), ("p.pdf", "application/pdf")],
)
def test_a_document_is_an_image_by_its_content(server: TelegramServer, run_bot: Run, name: str, mime: str) -> None:
    def scenario(bot: TelegramBot) -> None:
        assert server.answer(server.document(7, PHOTO, name, mime)).text == FACES
        text = server.answer(server.document(7, b"these are words", name, mime))
        assert (text.method, text.text) == ("sendMessage", say("en", "not_an_image"))

    run_bot(scenario)


def test_every_reason_for_no_picture_has_its_own_answer(server: TelegramServer, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        large = server.file(b"", width=9, height=9) | {"file_size": 20 * 2**20 + 1}
        server.failures["getFile"] = []
        assert server.answer(server.photo(7, DARK)).text == say("en", "no_face")
        assert server.answer(server.photo(7, PHOTO[:700])).text == say("en", "not_an_image")
        assert server.answer(server.send(7, document=large)).text == say("en", "file_too_large", limit=20)
        server.failures["getFile"] = [Failure(400, "Bad Request: file is too big")]
        assert server.answer(server.photo(7, PHOTO)).text == say("en", "file_too_large", limit=20)
        long = server.video(7, b"", duration=61)
        assert server.answer(long).text == say("en", "video_too_long", limit=60)
        assert server.answer(server.video(7, b"no video")).text == say("en", "not_a_video")

    run_bot(scenario)


def test_a_fault_of_the_bots_own_has_a_number_that_is_in_the_log(
    server: TelegramServer, run_bot: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def scenario(bot: TelegramBot) -> None:
        texts = [server.answer(server.photo(7, PHOTO, language=language)).text for language in ("en", "de")]
        assert "my fault" in texts[0]
        assert "mein Fehler" in texts[1]
        numbers = [re.findall(r"[0-9a-f]{8}", text)[0] for text in texts]
        assert numbers[0] != numbers[1]
        for number in numbers:
            (record,) = [record for record in caplog.records if number in record.getMessage()]
            assert "the model has a hole in it" in caplog.handler.format(record)

    run_bot(scenario, BrokenReader())


def test_a_database_that_fails_keeps_nobody_from_an_answer(
    server: TelegramServer, users: Users, run_bot: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def scenario(bot: TelegramBot) -> None:
        server.answer(server.text(7, "hello"))
        users.connection.execute("DROP TABLE users")
        assert server.answer(server.photo(7, PHOTO)).text == FACES
        assert any("a user could not be stored" in record.getMessage() for record in caplog.records)
        users.connection.execute("CREATE TABLE users (id)")

    run_bot(scenario)


def test_an_album_gets_one_album_in_its_order(server: TelegramServer, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        pictures = [jpeg(np.full((200, 300 + 50 * number, 3), 128, np.uint8)) for number in range(3)]
        first = server.photo(7, pictures[0], media_group_id="a")
        other = server.photo(8, PHOTO, media_group_id="a")
        rest = [server.photo(7, data, media_group_id="a") for data in (DARK, b"damaged", *pictures[1:])]
        answer = server.answer(first)
        assert answer.method == "sendMediaGroup"
        media = answer.parameters["media"]
        widths = [Image.open(io.BytesIO(answer.files[each["media"].removeprefix("attach://")])).width for each in media]
        assert widths == sorted(widths)
        assert len(set(widths)) == 3
        captions = [each.get("caption") for each in media]
        assert captions[1:] == [None, None]
        assert captions[0].split("\n\n") == [
            f"Picture 1:\n{FACES}",
            f"Picture 2:\n{say('en', 'no_face')}",
            f"Picture 3:\n{say('en', 'not_an_image')}",
            f"Picture 4:\n{FACES}",
            f"Picture 5:\n{FACES}",
        ]
        assert server.answer(other).method == "sendPhoto"
        server.answer(server.text(7, "done?"))
        assert not [call for call in server.calls if call.answers in rest]

    run_bot(scenario)


def test_an_album_of_which_little_is_to_be_seen(server: TelegramServer, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        first = server.photo(7, DARK, media_group_id="a")
        server.photo(7, PHOTO, media_group_id="a")
        assert server.answer(first).method == "sendPhoto"
        assert server.answer(first).text == f"Picture 1:\n{say('en', 'no_face')}\n\nPicture 2:\n{FACES}"
        first = server.photo(7, DARK, media_group_id="b")
        server.photo(7, DARK, media_group_id="b")
        assert server.answer(first).method == "sendMessage"

    run_bot(scenario)


def test_an_albums_wide_pictures_go_as_documents_and_long_texts_after_them(
    server: TelegramServer, run_bot: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "PHOTO_RATIO", 2)
    monkeypatch.setattr(replies, "CAPTION", 500)
    wide = jpeg(np.full((400, 1200, 3), 128, np.uint8))

    def scenario(bot: TelegramBot) -> None:
        sent = [server.photo(7, data, media_group_id="a") for data in (*[wide, PHOTO] * 2, *[PHOTO] * 6)]
        photos, documents, text = server.answers(sent[0], 3)
        assert [each["type"] for each in photos.parameters["media"]] == ["photo"] * 8
        assert [each["type"] for each in documents.parameters["media"]] == ["document"] * 2
        assert all("caption" not in each for each in photos.parameters["media"] + documents.parameters["media"])
        assert text.text == "\n\n".join(f"Picture {number}:\n{FACES}" for number in range(1, 11))

    run_bot(scenario)


def test_more_faces_than_a_caption_holds_are_told_after_the_picture(server: TelegramServer, run_bot: Run) -> None:
    class Crowd(BrightnessReader):
        def read_frame(self, frame: Frame) -> Reading:
            reading = super().read_frame(frame)
            return Reading(reading.file, reading.width, reading.height, reading.faces * 100)

    def scenario(bot: TelegramBot) -> None:
        answers = server.answers(server.photo(7, PHOTO), 3)
        assert [answer.method for answer in answers] == ["sendPhoto", "sendMessage", "sendMessage"]
        assert answers[0].text == ""
        lines = "\n".join(answer.text for answer in answers[1:]).split("\n")
        assert [int(line.split(".")[0]) for line in lines] == list(range(1, 201))

    run_bot(scenario, Crowd())


@pytest.mark.parametrize("kind", ["video", "video_note", "animation"])
def test_videos_of_every_kind_come_back_drawn(server: TelegramServer, run_bot: Run, kind: str) -> None:
    def scenario(bot: TelegramBot) -> None:
        answer = server.answer(server.video(7, video(20), kind=kind))
        assert answer.method == "sendVideo"
        assert answer.text == "1. mostly happy (100% of the time)\n2. mostly uncertain (100% of the time)"
        assert b"ftyp" in answer.file[:12]
        assert answer.parameters["duration"] == 1

    run_bot(scenario)


def test_a_video_as_a_document_and_in_an_album(server: TelegramServer, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        assert server.answer(server.document(7, video(5), "v.mp4", "video/mp4")).method == "sendVideo"
        first = server.photo(7, PHOTO, media_group_id="a")
        server.video(7, video(5), media_group_id="a")
        answer = server.answer(first)
        assert [each["type"] for each in answer.parameters["media"]] == ["photo", "video"]

    run_bot(scenario)


def test_a_video_that_is_being_read_when_the_bot_stops_is_asked_for_again(server: TelegramServer, run_bot: Run) -> None:
    class SlowReader(BrightnessReader):
        bot: TelegramBot

        def read_frame(self, frame: Frame) -> Reading:
            reading = super().read_frame(frame)
            if len(self.sizes) == 2:
                self.bot.stop_reading.set()  # as stop() does; this is another thread
            return reading

    reader = SlowReader()

    def scenario(bot: TelegramBot) -> None:
        reader.bot = bot
        assert server.answer(server.video(7, video(50))).text == say("en", "stopping")
        assert len(reader.sizes) < 50

    run_bot(scenario, reader)


def test_who_sends_too_much_is_told_once_and_others_go_on(server: TelegramServer, run_bot: Run) -> None:
    def scenario(bot: TelegramBot) -> None:
        answered = [server.photo(7, PHOTO) for _ in range(3)]
        for message in answered:
            assert server.answer(message).method == "sendPhoto"
        told = server.answer(server.photo(7, PHOTO)).text
        assert re.fullmatch(say("en", "busy", seconds="(1[0-9]|20)").replace(".", r"\."), told)
        silent = [server.photo(7, PHOTO), server.text(7, "hello?")]
        assert server.answer(server.text(7, "/help")).method == "sendMessage"
        assert server.answer(server.photo(8, PHOTO)).method == "sendPhoto"
        assert not [call for call in server.calls if call.answers in silent]

    run_bot(scenario, per_minute=3)


@pytest.mark.parametrize(
    "failures",
    [
        [Failure(429, "Too Many Requests: retry after 1", 1)],
        [Failure(500, "Internal Server Error")],
        [Failure(None), Failure(502, "Bad Gateway")],
    ],
    ids=["too many requests", "server error", "dropped"],
)
def test_an_answer_that_telegram_fails_is_sent_again(
    server: TelegramServer, run_bot: Run, failures: list[Failure]
) -> None:
    def scenario(bot: TelegramBot) -> None:
        server.failures.update(sendPhoto=list(failures), getFile=list(failures[:1]))
        server.failures.update(download=[each for each in failures if not each.retry_after])
        answer = server.answer(server.photo(7, PHOTO))
        assert (answer.method, answer.text) == ("sendPhoto", FACES)
        assert Image.open(io.BytesIO(answer.file)).convert("L").size[0] > 300
        assert not any(server.failures.values())
        server.answer(server.text(7, "and now?"))
        assert len([call for call in server.calls if call.method == "sendPhoto"]) == 1

    run_bot(scenario)


def test_a_user_who_has_blocked_the_bot_is_no_error(
    server: TelegramServer, run_bot: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def scenario(bot: TelegramBot) -> None:
        server.failures["sendMessage"] = [Failure(403, "Forbidden: bot was blocked by the user")]
        server.text(7, "hello")
        server.wait(lambda: not server.failures["sendMessage"], "try to answer")
        server.answer(server.text(8, "hello"))

    run_bot(scenario)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_refused_token_and_a_token_revoked_later_end_it(
    server: TelegramServer, run_bot: Run, plain_records: None
) -> None:
    server.token = "another"
    with pytest.raises(InputError, match="Telegram does not know the bot's token") as caught:
        run_bot(lambda bot: time.sleep(0.5))
    assert caught.value.__suppress_context__
    server.token = TOKEN

    def scenario(bot: TelegramBot) -> None:
        server.answer(server.text(7, "hello"))
        server.token = "another"
        wait_for(bot.stopped.is_set)

    with pytest.raises(InputError, match="Telegram does not know the bot's token"):
        run_bot(scenario)


def test_a_poll_that_fails_is_told_and_made_again(
    server: TelegramServer, run_bot: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def scenario(bot: TelegramBot) -> None:
        server.answer(server.text(7, "hello"))
        server.failures["getUpdates"] = [Failure(502, "Bad Gateway"), Failure(409, "Conflict: terminated by other")]
        server.answer(server.text(7, "hello"))
        server.answer(server.text(7, "hello"))

    run_bot(scenario)
    assert "Telegram cannot be reached (Bad Gateway); trying again" in caplog.messages
    assert "error: another program takes this bot's updates; stop it, or this one" in caplog.messages


def test_it_waits_for_a_network_that_is_not_there_yet(
    server: TelegramServer, run_bot: Run, caplog: pytest.LogCaptureFixture
) -> None:
    server.failures["getMe"] = [Failure(502, "Bad Gateway")]
    with caplog.at_level(logging.INFO, "pipeline"):
        run_bot(lambda bot: server.answer(server.text(7, "hello")))
    assert "Telegram cannot be reached (Bad Gateway); trying again in 0 s" in caplog.messages


def test_the_token_is_in_no_line_of_any_log(
    server: TelegramServer, run_bot: Run, plain_records: None, tmp_path: Path
) -> None:
    from pipeline.bot.credentials import hide_token

    hide_token(TOKEN)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", "httpx", "httpcore", "telegram", "asyncio")}
    root.addHandler(handler)
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)

    def scenario(bot: TelegramBot) -> None:
        server.failures.update(
            sendPhoto=[Failure(500, "Internal Server Error")],
            download=[Failure(None)],
            getFile=[Failure(400, f"Bad Request: {TOKEN}")],
        )
        server.answer(server.photo(7, PHOTO))
        server.answer(server.photo(7, PHOTO))
        server.token = "another"
        wait_for(bot.stopped.is_set)

    try:
        with pytest.raises(InputError) as caught:
            run_bot(scenario)
    finally:
        root.removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
    text = stream.getvalue()
    assert "/bot[hidden]/sendPhoto" in text  # what httpx would have told
    assert TOKEN not in text
    assert TOKEN not in repr(caught.value)


def test_texts_are_split_between_lines() -> None:
    assert split("", 5) == []
    assert split("abc\nde", 6) == ["abc\nde"]
    assert split("abc\nde\nf", 6) == ["abc\nde", "f"]
    assert split("abcdefgh\ni", 5) == ["abcde", "fgh\ni"]
