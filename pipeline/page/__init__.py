"""The page that reads a camera, a picture or a video: the files that the server and the static page share.

What reads the pictures is behind api.js, of which each has its own, with the same exports: STATES (words for `waiting`,
`ready` and `lost`), describe(), readPicture(), Live, useToken() and hasToken(). The last argument of
readPicture() and of Live.send() says whether faces get heat maps; describe() says whether there are any.
"""

import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml",
}
FIELD = re.compile(r"\{\{(\w+)\}\}")  # in the HTML files


def page_files(words: Mapping[str, str]) -> dict[str, bytes]:
    """The shared files by name, with the fields of the HTML files filled in.

    Args:
        words: HTML by field. head: of the documents' heads; card: the address of the model card's page; links: further
            links of the menu; promise: what becomes of a visitor's pictures; without_scripts: what a visitor without
            JavaScript can do.
    """
    found = {}
    for path in sorted(FOLDER.iterdir()):
        if path.suffix == ".html":
            text = FIELD.sub(lambda field: words[field[1]], path.read_text(encoding="utf-8"))
            found[path.name] = text.encode()
        elif path.suffix in TYPES:
            found[path.name] = path.read_bytes()
    return found
