"""The files of the page, held in memory: no path that a client sends is ever opened."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

PAGE = Path(__file__).parent / "page"
EMOJI = Path(__file__).parents[1] / "drawing/emoji"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """A file that is served at one path, and kept by browsers until it changes."""

    content: bytes
    media_type: str

    async def answer(self, request: Request) -> Response:
        tag = f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.media_type, headers=headers)


def assets(card: str) -> dict[str, Asset]:
    """By path. card: the model's, in Markdown."""
    found = {f"/{path.name}": _read(path) for path in sorted(PAGE.iterdir()) if path.suffix in TYPES}
    for name, path in (("index", "/"), ("docs", "/docs"), ("card", "/model-card")):
        found[path] = found.pop(f"/{name}.html")
    found |= {f"/emoji/{path.name}": _read(path) for path in sorted(EMOJI.glob("*.svg"))}
    found["/model-card.md"] = Asset(card.encode(), TYPES[".md"])
    return found


def _read(path: Path) -> Asset:
    return Asset(path.read_bytes(), TYPES[path.suffix])
