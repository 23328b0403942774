"""Who uses the bot, in SQLite."""

import os
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import InputError

APPLICATION = 0x66616365  # SQLite's application_id of these files: "face"
VERSION = 1  # of the tables
SCHEMA = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY,        -- Telegram's
    language TEXT,                 -- IETF tag of the user's Telegram, where it tells
    chosen TEXT,                   -- by /language
    first_seen INTEGER NOT NULL,   -- seconds since 1970, UTC
    last_seen INTEGER NOT NULL,
    messages INTEGER NOT NULL
) STRICT
"""


@dataclass(frozen=True)
class User:
    """A row of the table; see SCHEMA."""

    id: int
    language: str | None
    chosen: str | None
    first_seen: int
    last_seen: int
    messages: int


class Users:
    """The users' table in the SQLite file `path`, made with its folders where it is missing; for any thread.

    Raises InputError when the file is something else or of a later version, OSError when it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite would let others read it
        self.connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self.connection.close()
            raise InputError(f"{path}: cannot be used as the bot's database ({error}); name another file") from None
        except InputError:
            self.connection.close()
            raise

    def _prepare(self) -> None:
        run = self.connection.execute
        run("BEGIN IMMEDIATE")  # of two bots that start at once, one makes the tables
        (application,), (version,) = run("PRAGMA application_id").fetchone(), run("PRAGMA user_version").fetchone()
        if run("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            run(SCHEMA)
            run(f"PRAGMA application_id = {APPLICATION}")
            run(f"PRAGMA user_version = {VERSION}")
        elif application != APPLICATION:
            raise InputError(f"{self.path}: is another program's database; name another file")
        elif version != VERSION:
            raise InputError(f"{self.path}: has tables of version {version} where {VERSION} was expected; update this")
        run("COMMIT")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("PRAGMA secure_delete = ON")  # who is forgotten is overwritten

    def seen(self, user: int, language: str | None) -> User:
        """Store that a user wrote just now."""
        now = int(time.time())
        with self.lock:
            row = self.connection.execute(
                "INSERT INTO users VALUES (?, ?, NULL, ?, ?, 1) ON CONFLICT (id) DO UPDATE SET"
                " language = excluded.language, last_seen = excluded.last_seen, messages = messages + 1 RETURNING *",
                (user, language, now, now),
            ).fetchone()
        return User(*row)

    def choose(self, user: int, language: str | None) -> None:
        """Store the language that a user wants; None for that of their Telegram."""
        with self.lock:
            self.connection.execute("UPDATE users SET chosen = ? WHERE id = ?", (language, user))

    def find(self, user: int) -> User | None:
        with self.lock:
            row = self.connection.execute("SELECT * FROM users WHERE id = ?", (user,)).fetchone()
        return User(*row) if row else None

    def forget(self, user: int) -> bool:
        """Delete a user; whether there was one."""
        with self.lock:
            return self.connection.execute("DELETE FROM users WHERE id = ?", (user,)).rowcount > 0

    def count(self) -> int:
        with self.lock:
            return int(self.connection.execute("SELECT count(*) FROM users").fetchone()[0])

    def close(self) -> None:
        with self.lock:
            self.connection.close()
