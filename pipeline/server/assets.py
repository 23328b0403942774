"""The files of the page, held in memory: no path that a client sends is ever opened."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from pipeline.drawing import emoji
from pipeline.page import TYPES, page_files

PAGE = Path(__file__).parent / "page"
WORDS = {
    "head": "",
    "card": "model-card",
    "links": '<a href="docs">API</a>',
    "promise": "Nothing is stored: pictures are read in memory and forgotten.",
    "without_scripts": 'Without it, <a href="openapi.json">the API</a> still answers.',
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
    found = {f"/{name}": Asset(content, TYPES[Path(name).suffix]) for name, content in page_files(WORDS).items()}
    found |= {f"/{path.name}": _read(path) for path in sorted(PAGE.iterdir()) if path.suffix in TYPES}
    for name, path in (("index", "/"), ("docs", "/docs"), ("card", "/model-card")):
        found[path] = found.pop(f"/{name}.html")
    found |= {f"/emoji/{path.name}": _read(path) for path in sorted(emoji.FOLDER.glob("*.svg"))}
    found["/model-card.md"] = Asset(card.encode(), TYPES[".md"])
    return found


def _read(path: Path) -> Asset:
    return Asset(path.read_bytes(), TYPES[path.suffix])
