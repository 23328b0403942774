"""From a request's body to the images in it: raw, a form's files, or JSON with base64, data URLs or addresses."""

import asyncio
import base64
import binascii
import json
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from pipeline.server.limits import Limits
from pipeline.server.problems import Problem

FORM, JSON = "multipart/form-data", "application/json"
RAW = "application/octet-stream"
MAX_NAME = 255  # characters, as file systems have it
MAX_URL = 2048
FORM_HEADER_BYTES = 1024  # of one line of a part's head: field, file name, type
JSON_MARKS, MARKS_PER_IMAGE = b'"[]{},:\\', 512  # what makes JSON slow to parse is bounded; base64 has none of it
PERCENT_BYTES = 64 << 10  # of a data URL without base64, as nobody sends images
DATA_URL = re.compile(r"data:([^,]{0,200}),", re.IGNORECASE)


@dataclass(frozen=True)
class Upload:
    """An image that was sent, or the address of one. name: as the client has it, for the answer only."""

    name: str
    data: bytes = b""
    url: str | None = None


def content_type(request: Request) -> str:
    """The media type with its parameters. Raises Problem `wrong_type` for one, or an encoding, that is not read."""
    value = request.headers.get("content-type", "")
    kind = media_type(value)
    if kind not in (FORM, JSON, RAW) and not kind.startswith("image/"):
        raise Problem("wrong_type", f"The body is declared as {kind or 'nothing'}.")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Problem("wrong_type", "The body is compressed by Content-Encoding; send it as it is.")
    return value


def media_type(value: str) -> str:
    kind = value.partition(";")[0].strip().lower()
    return kind if re.fullmatch(r"[\w.+-]{1,100}/[\w.+-]{1,100}", kind, re.ASCII) else ""


async def read_body(request: Request, limits: Limits, hold: Callable[[int], None]) -> bytes:
    """Read the body, of which nothing is kept once it is longer than is allowed or takes too long.

    hold: counts the bytes that are in memory.
    """
    refusal = Problem("too_large", f"The body is longer than {limits.body_bytes} bytes.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > limits.body_bytes:
        raise refusal
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limits.body_bytes:
                    raise refusal
                hold(len(chunk))
                body += chunk
    except TimeoutError:
        raise Problem("too_slow", f"The body did not arrive within {limits.body_seconds:g} s.") from None
    return bytes(body)


def parse_upload(value: str, body: bytes, images: int, *, one: bool) -> list[Upload]:
    """The images of a body of content type `value`: one, or from one up to `images`."""
    kind = media_type(value)
    if kind == FORM:
        uploads = _form(value, body, images)
    elif kind == JSON:
        uploads = _json(body, 1 if one else images, one)
    else:
        uploads = [Upload("image", body)]
    if not uploads or len(uploads) > (1 if one else images):
        raise Problem(
            "wrong_number",
            f"{len(uploads) or 'No'} images were sent, where {'one was' if one else f'1 to {images} were'} expected.",
        )
    return uploads


def plain_name(name: str) -> str:
    """A file's name without folders and control characters: it is shown, and never opened."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(c for c in last if c.isprintable())[:MAX_NAME] or "image"


def _form(value: str, body: bytes, images: int) -> list[Upload]:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import Field, File, FormParser, parse_options_header

    _, options = parse_options_header(value)
    boundary = options.get(b"boundary")
    if not boundary:
        raise Problem("not_understood", "The form's content type names no boundary.")
    uploads: list[Upload] = []
    ended = False

    def on_file(file: File) -> None:
        if len(uploads) == images:
            raise Problem("wrong_number", f"More than {images} files were sent.")
        name = (file.file_name or b"").decode("utf-8", "replace")
        file.file_object.seek(0)
        uploads.append(Upload(plain_name(name), file.file_object.read()))
        file.close()

    def on_field(field: Field) -> None:
        name = (field.field_name or b"").decode("utf-8", "replace")[:40]
        raise Problem("not_understood", f"The form's field {name!r} is no file; send files only.")

    def on_end() -> None:
        nonlocal ended
        ended = True

    # Nothing may be put on the disk: no file in the form can be longer than the body, which is in memory.
    config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1, "MAX_HEADER_SIZE": FORM_HEADER_BYTES}
    try:
        parser = FormParser(FORM, on_field, on_file, on_end, boundary, config=config)
        parser.write(body)
        parser.finalize()
    except (FormParserError, binascii.Error):
        raise Problem("not_understood", "The body is no form of the kind that its content type says.") from None
    if not ended:
        raise Problem("not_understood", "The form ends before its last boundary.")
    return uploads


def _json(body: bytes, images: int, one: bool) -> list[Upload]:
    # Counted first, as json.loads holds up all threads, also the one that serves the others.
    if len(body) - len(body.translate(None, JSON_MARKS)) > MARKS_PER_IMAGE * images:
        raise Problem("not_understood", "The JSON has more values than images can have.")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem("not_understood", "The body is no JSON.") from None
    if one:
        return [_item(value, "image")]
    if not isinstance(value, dict) or not isinstance(value.get("images"), list) or len(value) != 1:
        raise Problem("not_understood", 'The JSON must be {"images": [...]}.')
    return [_item(item, f"image {number}") for number, item in enumerate(value["images"], 1)]


def _item(value: Any, name: str) -> Upload:
    """A base64 text or data URL, or an object of `image` with one or `url` with an address, and perhaps `name`."""
    if isinstance(value, str):
        value = {"image": value}
    if (
        not isinstance(value, dict)
        or len(value.keys() & {"image", "url"}) != 1
        or value.keys() - {"image", "url", "name"}
        or not all(isinstance(text, str) for text in value.values())
    ):
        raise Problem("not_understood", f'{name} must be {{"image": BASE64}} or {{"url": ADDRESS}}.')
    name = plain_name(value.get("name", name))
    if "url" in value:
        if len(value["url"]) > MAX_URL:
            raise Problem("not_understood", f"{name}: the address is longer than {MAX_URL} characters.")
        return Upload(name, url=value["url"])
    return Upload(name, decode_base64_body(value["image"], name))


def decode_base64_body(text: str, name: str) -> bytes:
    """The bytes of a base64 text or of a data URL (RFC 2397)."""
    match = DATA_URL.match(text)
    payload = text[match.end() :] if match else text
    try:
        if match and not match[1].lower().endswith(";base64"):
            if len(payload) > PERCENT_BYTES:
                raise Problem("not_understood", f"{name} is a long data URL without base64; send it in base64.")
            return unquote_to_bytes(payload)
        return base64.b64decode(payload.encode("ascii").translate(None, string.whitespace.encode()), validate=True)
    except ValueError:
        raise Problem("not_understood", f"{name} is neither base64 nor a data URL.") from None
