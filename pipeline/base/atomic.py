"""Outputs appear whole or not at all: written under a temporary name beside the target, then renamed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pipeline.base.errors import InputError


@contextmanager
def atomic_file(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a file that replaces `path` when the block ends without an error, and vanishes otherwise.

    `mode` and `options` are open()'s. The target's folder is made. Raises OSError as open() does; whatever
    stood at `path` before is then still there.
    """
    if path.is_dir():  # "" is one, too
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    _make_parent(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # of a disk that is read-only, for one
            temporary.unlink()
        _name(error, path)
        raise


@contextmanager
def atomic_folder(path: Path, own: Collection[str] | None = None) -> Iterator[Path]:
    """Give an empty folder that replaces `path` when the block ends without an error, and vanishes otherwise.

    own: names of all that may stand in `path` before; anything else raises InputError, so that nobody's files are lost.
    """
    other = sorted(entry.name for entry in path.iterdir() if entry.name not in own) if own and path.is_dir() else []
    if other:
        raise InputError(f"{path}: holds other files ({other[0]}), which would be lost; give a new folder")
    _make_parent(path)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        _name(error, path)
        raise
    try:
        temporary.chmod(0o755)  # mkdtemp's 0700 would follow the folder to its final name
        yield temporary
        if path.is_symlink() or not path.is_dir():
            os.replace(temporary, path)
            return
        # A folder cannot be renamed over a full one: the old one steps aside until the new one stands.
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".old", dir=path.parent) as aside:
            os.replace(path, Path(aside) / path.name)
            os.replace(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        _name(error, path)
        raise


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from None


def _name(error: BaseException, path: Path) -> None:
    """Tell the output in an error of writing that says nothing, as of a full disk, or a temporary name."""
    if not isinstance(error, OSError):
        return
    if error.filename is None:
        error.filename = str(path)
        return
    parts = Path(os.fsdecode(error.filename)).parts
    temporary = next((at for at, part in enumerate(parts) if part.startswith(f".{path.name}.")), None)
    if temporary is not None:
        error.filename = str(path.joinpath(*parts[temporary + 1 :]))
        if error.filename2 is not None:
            del error.filename2  # of two names that a renaming has, the other is the output's own
