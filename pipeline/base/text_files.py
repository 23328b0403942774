"""Text files of the project's own: one that is damaged is an error that names the file, the place and the way out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError


def read_text(path: Path, remedy: str, error: type[InputError] = InputError) -> str:
    """Read UTF-8. Raises `error` naming the line that is none and the remedy, OSError when the file cannot be read."""
    data = path.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        raise error(f"{path}:{line}: byte {data[wrong.start]:#04x}, which is not UTF-8; {remedy}") from None


def read_lines(path: Path, remedy: str, error: type[InputError] = InputError) -> Iterator[str]:
    """Read UTF-8 line by line, with line feeds; memory does not grow with the file. Raises as read_text does."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode()
            except UnicodeDecodeError as wrong:
                raise error(f"{path}:{number}: byte {line[wrong.start]:#04x}, which is not UTF-8; {remedy}") from None


def read_json(path: Path, remedy: str, error: type[InputError] = InputError) -> dict[str, Any]:
    """Read a JSON object. Raises `error` naming what is wrong and the remedy, OSError when the file cannot be read."""
    try:
        value = json.loads(read_text(path, remedy, error))
    except (ValueError, RecursionError) as wrong:
        raise error(f"{path}: no JSON ({wrong}); {remedy}") from None
    if not isinstance(value, dict):
        raise error(f"{path}: a JSON object was expected; {remedy}")
    return value
