"""Users: once each, kept, deleted on demand, from several threads and processes; foreign files are refused."""

import sqlite3
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.bot.users import Users


def test_a_user_is_stored_once_with_first_and_last_visit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some folder/über/users.sqlite3"
    users = Users(path)
    monkeypatch.setattr(time, "time", lambda: 1000.9)
    first = users.seen(7, "en")
    monkeypatch.setattr(time, "time", lambda: 2000.2)
    again = users.seen(7, "de-AT")
    users.seen(2**52, None)
    assert (first.first_seen, first.last_seen, first.messages, first.language) == (1000, 1000, 1, "en")
    assert (again.first_seen, again.last_seen, again.messages, again.language) == (1000, 2000, 2, "de-AT")
    users.close()
    reopened = Users(path)
    assert (reopened.count(), reopened.find(7), reopened.find(8)) == (2, again, None)
    reopened.close()


def test_the_file_is_private_and_in_write_ahead_mode(tmp_path: Path) -> None:
    users = Users(tmp_path / "users")
    assert stat.S_IMODE((tmp_path / "users").stat().st_mode) == 0o600
    with sqlite3.connect(tmp_path / "users") as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("PRAGMA user_version").fetchone() == (1,)
    other.close()
    users.close()


def test_a_chosen_language_outlasts_that_of_telegram_until_it_is_taken_back(users: Users) -> None:
    users.seen(7, "en")
    users.choose(7, "de")
    assert users.seen(7, "fr").chosen == "de"
    users.choose(7, None)
    assert users.seen(7, "fr").chosen is None


def test_who_is_forgotten_is_gone_from_the_file(tmp_path: Path) -> None:
    users = Users(tmp_path / "users")
    users.seen(7, "x-unmistakable")
    assert (users.forget(7), users.forget(7), users.find(7)) == (True, False, None)
    users.close()
    assert b"unmistakable" not in (tmp_path / "users").read_bytes()
    assert not (tmp_path / "users-wal").exists()


def test_threads_and_a_second_process_share_it(tmp_path: Path) -> None:
    ours, theirs = Users(tmp_path / "users"), Users(tmp_path / "users")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: (ours, theirs)[number % 2].seen(number % 5, "en"), range(200)))
    assert ours.count() == theirs.count() == 5
    found = [ours.find(number) for number in range(5)]
    assert [user.messages for user in found if user] == [40] * 5
    ours.close()
    theirs.close()


@pytest.mark.parametrize("kind", ["text", "other program", "later version", "other tables"])
def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "users"
    if kind == "text":
        path.write_text("These are the minutes of the meeting. " * 50)
    elif kind == "later version":
        Users(path).close()
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 2")
        database.close()
    else:
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE users (name TEXT)")
            database.execute(f"PRAGMA application_id = {5 if kind == 'other program' else 0}")
        database.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"users: .*(cannot be used|another program's|version 2 where 1)"):
        Users(path)
    assert path.read_bytes() == before


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=str(tmp_path)):
        Users(tmp_path)
