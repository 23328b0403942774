"""Secrets: found where they should be, refused without being repeated, and blanked out of logs."""

import io
import logging
import os
from pathlib import Path

import pytest
from helpers.telegram_server import TOKEN

from pipeline.base.errors import InputError
from pipeline.bot.credentials import HIDDEN, hide_token, read_bot_token, webhook_secret

pytestmark = pytest.mark.usefixtures("plain_records")


def test_the_token_comes_from_the_environment_and_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", f" {TOKEN}\n")
    assert read_bot_token(None) == TOKEN
    assert "TELEGRAM_BOT_TOKEN" not in os.environ


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_the_token_comes_from_a_file_and_one_that_others_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(mode)
    assert read_bot_token(path) == TOKEN
    assert [record.message for record in caplog.records] == (
        [] if mode == 0o600 else [f"{path}: others may read this token; run chmod 600 on it"]
    )


def test_no_token_says_where_one_may_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELEGRAM_BOT_TOKEN", raising=False)
    with pytest.raises(InputError, match=r"^no token: set the variable TELEGRAM_BOT_TOKEN or give --token-file"):
        read_bot_token(None)


@pytest.mark.parametrize(
    "text", ["hunter2", "987654321", TOKEN + "/../x", f"{TOKEN} {TOKEN}", "12:" + "é" * 30, "\0" * 9]
)
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(InputError, match=r"token: holds no token of the form") as caught:
        read_bot_token(path)
    assert text not in str(caught.value)


def test_the_webhooks_secret_is_made_up_anew_where_none_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELEGRAM_WEBHOOK_SECRET", raising=False)
    made = {webhook_secret() for _ in range(3)}
    assert len(made) == 3
    assert all(len(secret) >= 32 for secret in made)
    monkeypatch.setenv("TELEGRAM_WEBHOOK_SECRET", "my_secret-1")
    assert webhook_secret() == "my_secret-1"
    assert "TELEGRAM_WEBHOOK_SECRET" not in os.environ
    monkeypatch.setenv("TELEGRAM_WEBHOOK_SECRET", "pass word!")
    with pytest.raises(InputError, match="TELEGRAM_WEBHOOK_SECRET: ") as caught:
        webhook_secret()
    assert "pass word!" not in str(caught.value)


def test_a_secret_is_blanked_out_of_every_record() -> None:
    hide_token("s3cret-of-mine")
    hide_token("another-one")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.Logger("somebody else", logging.DEBUG)
    logger.addHandler(handler)
    logger.debug("at https://host/bots3cret-of-mine/getMe")
    logger.info("at %s, %d times, with another-one", "https://host/bots3cret-of-mine/getMe", 3)
    logger.info("with %(word)s", {"word": "s3cret-of-mine"})
    logger.info("a wrong %d", "s3cret-of-mine")
    logger.info("nothing of the kind: %s", "fine")
    try:
        try:
            raise ValueError("s3cret-of-mine was refused")
        except ValueError as error:
            raise RuntimeError("so it ended") from error
    except RuntimeError:
        logger.exception("with a traceback")
    text = stream.getvalue()
    assert "s3cret-of-mine" not in text
    assert "another-one" not in text
    assert f"at https://host/bot{HIDDEN}/getMe, 3 times, with {HIDDEN}\n" in text
    assert f"ValueError: {HIDDEN} was refused" in text
    assert "RuntimeError: so it ended" in text
    assert "nothing of the kind: fine" in text
