"""A server that speaks as much of Telegram's Bot API as a bot of pictures needs: core.telegram.org/bots/api."""

import json
import socket
import threading
import time
import urllib.request
from collections import defaultdict, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

TOKEN = "123456789:AAE-fake_token_of_no_bot_at_all_xyz"
BOT = {"id": 123456789, "is_bot": True, "first_name": "Faces", "username": "faces_bot"}


@dataclass
class Call:
    """A request of the bot's: the API's method, its parameters, and the files that came along, by their part's name."""

    method: str
    parameters: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def answers(self) -> int | None:
        """The message that this one replies to."""
        return self.parameters.get("reply_parameters", {}).get("message_id")

    @property
    def text(self) -> str:
        return self.parameters.get("text", self.parameters.get("caption", ""))

    @property
    def file(self) -> bytes:
        (data,) = self.files.values()
        return data


@dataclass
class Failure:
    """What the server does instead of answering: a status with Telegram's words, or dropping the connection."""

    status: int | None = None
    description: str = ""
    retry_after: int | None = None


class TelegramServer:
    """failures: by method, each met once. calls: all but those that ask for updates or show an action."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.updates: deque[dict[str, Any]] = deque()
        self.files: dict[str, bytes] = {}
        self.calls: list[Call] = []
        self.failures: dict[str, list[Failure]] = defaultdict(list)
        self.polls = 0
        self.actions = 0
        self.webhook: dict[str, Any] = {}
        self.token = TOKEN
        self.number = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_POST(self) -> None:
                server.respond(self)

            def do_GET(self) -> None:
                server.respond(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    # What users send

    def send(self, user: int, language: str | None = "en", chat: int | None = None, **content: Any) -> int:
        """A message from a user, with Message's fields as `content`; gives its number."""
        author = {"id": user, "is_bot": False, "first_name": "Ann"}
        if language:
            author["language_code"] = language
        with self.changed:
            self.number += 1
            place = {"id": user, "type": "private"} if chat is None else {"id": chat, "type": "group", "title": "All"}
            message = {"message_id": self.number, "date": int(time.time()), "chat": place, "from": author, **content}
            update = {"update_id": 1000 + self.number, "message": message}
            if not self.webhook.get("url"):
                self.updates.append(update)
            self.changed.notify_all()
            number = self.number
        if self.webhook.get("url"):
            self.call_webhook(update, self.webhook["secret_token"])
        return number

    def call_webhook(self, update: dict[str, Any], secret: str) -> int:
        """Bring an update; gives the bot's status."""
        request = urllib.request.Request(
            self.webhook["url"],
            json.dumps(update).encode(),
            {"Content-Type": "application/json", "X-Telegram-Bot-Api-Secret-Token": secret},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def text(self, user: int, text: str, **options: Any) -> int:
        entities = (
            [{"type": "bot_command", "offset": 0, "length": len(text.split(maxsplit=1)[0])}] if text[0] == "/" else []
        )
        return self.send(user, text=text, entities=entities, **options)

    def photo(self, user: int, data: bytes, **options: Any) -> int:
        sizes = [self.file(b"a small preview", width=90, height=90), self.file(data, width=900, height=900)]
        return self.send(user, photo=sizes[::-1], **options)

    def document(self, user: int, data: bytes, name: str, mime: str | None, **options: Any) -> int:
        return self.send(user, document=self.file(data, file_name=name, mime_type=mime), **options)

    def video(self, user: int, data: bytes, duration: int = 2, kind: str = "video", **options: Any) -> int:
        shape = {"length": 240} if kind == "video_note" else {"width": 320, "height": 240}
        return self.send(user, **(options | {kind: self.file(data, duration=duration, **shape)}))

    def file(self, data: bytes, **fields: Any) -> dict[str, Any]:
        """An object such as PhotoSize or Document for a file that the bot may fetch."""
        with self.changed:
            name = f"file{len(self.files)}"
            self.files[name] = data
        return {"file_id": name, "file_unique_id": name, "file_size": len(data), **fields}

    # What the bot does

    def wait(self, condition: Any, what: str, seconds: float = 20) -> Any:
        """What `condition()` gives once that is true; AssertionError when it stays false."""
        with self.changed:
            if not self.changed.wait_for(condition, seconds):
                raise AssertionError(f"the bot did not {what}; it did {[(c.method, c.text) for c in self.calls]}")
            return condition()

    def answers(self, message: int, number: int = 1) -> list[Call]:
        """The first answers to a message, so many."""

        def found() -> list[Call]:
            calls = [call for call in self.calls if call.answers == message]
            return calls if len(calls) >= number else []

        return self.wait(found, f"answer message {message}")[:number]

    def answer(self, message: int) -> Call:
        return self.answers(message)[0]

    # The API

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(handler.path).path)
        downloads = f"/file/bot{self.token}/"
        if path.startswith(downloads):
            self._reply(handler, "download", lambda: self.files[path.removeprefix(downloads)])
        elif path.startswith(f"/bot{self.token}/"):
            method = path.rpartition("/")[2]
            call = Call(method, *_parameters(handler.headers.get("Content-Type", ""), body))
            self._reply(handler, method, lambda: self._result(call))
        else:
            self._write(handler, 401, {"ok": False, "error_code": 401, "description": "Unauthorized"})

    def _reply(self, handler: BaseHTTPRequestHandler, method: str, result: Any) -> None:
        with self.changed:
            failure = self.failures[method].pop(0) if self.failures[method] else None
        if failure and failure.status is None:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
        elif failure and failure.status is not None:
            answer: dict[str, Any] = {"ok": False, "error_code": failure.status, "description": failure.description}
            if failure.retry_after:
                answer["parameters"] = {"retry_after": failure.retry_after}
            self._write(handler, failure.status, answer)
        else:
            value = result()
            self._write(handler, 200, value if isinstance(value, bytes) else {"ok": True, "result": value})

    @staticmethod
    def _write(handler: BaseHTTPRequestHandler, status: int, answer: Any) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        try:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)
        except OSError:  # the bot has ended meanwhile
            handler.close_connection = True

    def _result(self, call: Call) -> Any:
        if call.method == "getUpdates":
            return self._wait_for_updates(call.parameters)
        with self.changed:
            if call.method == "sendChatAction":
                self.actions += 1
            else:
                self.calls.append(call)
            if call.method == "setWebhook":
                self.webhook = call.parameters
            if call.method == "deleteWebhook":
                self.webhook = {}
            self.changed.notify_all()
        if call.method == "getMe":
            return BOT
        if call.method == "getFile":
            name = call.parameters["file_id"]
            return {"file_id": name, "file_unique_id": name, "file_size": len(self.files[name]), "file_path": name}
        if call.method == "sendMediaGroup":
            return [self._message(call) for _ in call.parameters["media"]]
        if call.method.startswith("send") and call.method != "sendChatAction":
            return self._message(call)
        return True

    def _message(self, call: Call) -> dict[str, Any]:
        chat = {"id": call.parameters["chat_id"], "type": "private"}
        return {"message_id": 100_000 + len(self.calls), "date": int(time.time()), "chat": chat, "text": "sent"}

    def _wait_for_updates(self, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        with self.changed:
            self.polls += 1
            self.changed.notify_all()
            offset = parameters.get("offset", 0)
            while self.updates and self.updates[0]["update_id"] < offset:
                self.updates.popleft()
            self.changed.wait_for(lambda: self.updates, min(parameters.get("timeout", 0), 0.3))
            return list(self.updates)[: parameters.get("limit", 100)]


def _parameters(content_type: str, body: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Parameters, JSON among them read, and files, of a form in either of its encodings."""
    texts: dict[str, str] = {}
    files: dict[str, bytes] = {}
    if content_type.startswith("multipart/form-data"):
        boundary = content_type.partition("boundary=")[2].strip('"').encode()
        for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]:
            head, _, data = part.partition(b"\r\n\r\n")
            name = head.partition(b'name="')[2].partition(b'"')[0].decode()
            if b"filename=" in head:
                files[name] = data
            else:
                texts[name] = data.decode()
    else:
        texts = dict(parse_qsl(body.decode(), keep_blank_values=True))
    return {name: _value(name, text) for name, text in texts.items()}, files


def _value(name: str, text: str) -> Any:
    if name in ("text", "caption", "secret_token", "url", "file_id", "language_code"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
