"""What can go wrong with a request, told as RFC 9457's problem JSON: a code, a sentence, and what to do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its HTTP status, its title, what the client can do about it."""

    status: int
    title: str
    action: str


KINDS = {
    "not_understood": Kind(400, "The request is not what it says it is", "Compare it with the examples at /docs."),
    "small_chunks": Kind(400, "The body's chunks are too small", "Send a Content-Length, or chunks of at least 1 KiB."),
    "no_token": Kind(401, "A token is needed", "Send the server's token as 'Authorization: Bearer TOKEN'."),
    "other_origin": Kind(403, "Pages of other origins may not ask", "Ask from its own page, or without one."),
    "urls_off": Kind(403, "No URLs are fetched here", "Send the image itself, or start the server with --allow-urls."),
    "explain_off": Kind(403, "No heat maps here", "Ask without explain, or start the server with --explain."),
    "not_found": Kind(404, "There is nothing here", "See /docs for what there is."),
    "wrong_method": Kind(405, "Not by this method", "See the Allow header and /docs."),
    "too_slow": Kind(408, "The request took too long to arrive", "Send it again over a faster connection, or smaller."),
    "too_large": Kind(413, "Too many bytes", "Scale the image down or send fewer at once."),
    "wrong_type": Kind(415, "Not a type that is read here", "Send multipart/form-data, image/*, or application/json."),
    "other_host": Kind(421, "Not this server's name", "Use the address that the server was started with, or --name."),
    "unreadable_image": Kind(422, "Not an image for this server", "Send a whole image of a format that is read."),
    "too_many_pixels": Kind(422, "Too many pixels", "Scale the image down to the limit that /v1/model tells."),
    "too_narrow": Kind(422, "Too long and narrow", "Cut the image into pieces."),
    "wrong_number": Kind(422, "Not the right number of images", "Send one to /v1/read, more to /v1/batch."),
    "not_fetched": Kind(422, "The URL gave no image", "Check that it is public, or send the image itself."),
    "too_often": Kind(429, "Too many requests", "Wait as long as Retry-After says."),
    "our_fault": Kind(500, "The server failed", "Try again; if it happens again, tell who runs this server."),
    "busy": Kind(503, "The server is busy", "Try again after as long as Retry-After says."),
}


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """One request's problem. code: of KINDS; detail: one sentence about this very request."""

    def __init__(self, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.kind = KINDS[code]

    def to_json(self) -> dict[str, Any]:
        return {
            "type": f"/docs#{self.code}",
            "title": self.kind.title,
            "status": self.kind.status,
            "code": self.code,
            "detail": self.detail,
            "action": self.kind.action,
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.to_json(), self.kind.status, self.headers, media_type="application/problem+json")
