"""Outputs appear whole or not at all: written under a temporary name beside the target, then renamed.

Where a name is a symbolic link, what it leads to is replaced, and the link stays.
What has its name survives a power cut: it is on the disk before the renaming, and the name is before the block ends.
A temporary name is .NAME.N.tmp, and its process holds a lock on it (flock). The kernel frees the lock when the process
ends, however it does, so that the next one to write NAME can tell what is left over, and removes it.
"""

import ctypes
import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from pipeline.base.errors import InputError

try:
    import fcntl
except ModuleNotFoundError:  # not everywhere; leftovers are not removed there
    fcntl = None  # type: ignore[assignment]

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)  # of a kernel or a file system that cannot


@contextmanager
def atomic_file(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """Open a file that replaces `path` when the block ends without an error, and vanishes otherwise.

    `mode` and `options` are open()'s. The target's folder is made. Raises OSError as open() does, and InputError for a
    pipe or device, which nothing can replace; whatever stood at `path` before is then still there.
    """
    if path.is_dir():  # "" is one, too
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path = _behind_links(path)
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: a pipe or device where a file is to be written; give a file's name")
    _make_parent(path)
    with naming(path):
        temporary, descriptor = _claim(path, lambda name: os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            with open(temporary, mode, opener=lambda name, flags: descriptor, **options) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, path)  # while the file is open: then its lock is held
            _sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):  # of a disk that is read-only, for one
                temporary.unlink()
            raise


@contextmanager
def atomic_folder(path: Path, own: Collection[str] | None = None, inputs: Iterable[Path] = ()) -> Iterator[Path]:
    """Give an empty folder that replaces `path` when the block ends without an error, and vanishes otherwise.

    own: names of all that may stand in `path` before. inputs: files and folders that it is made from. Anything else in
    `path`, and an input in it, raises InputError, so that nobody's files are lost.
    """
    path = _behind_links(path)
    _restore(path)
    other = sorted(entry.name for entry in path.iterdir() if entry.name not in own) if own and path.is_dir() else []
    if other:
        raise InputError(f"{path}: holds other files ({other[0]}), which would be lost; give a new folder")
    place = path.resolve()
    for each in inputs:
        if each.resolve().is_relative_to(place):
            raise InputError(f"{path}: {each}, which is read, is there and would be lost; give another folder")
    _make_parent(path)
    with naming(path), temporary_folder(path) as temporary:
        yield temporary
        # The whole file system at once: to sync 32,000 small files one by one takes minutes, this a second.
        _sync_file_system(temporary)
        if not path.is_dir():
            os.replace(temporary, path)
        elif not _exchange(temporary, path):
            _replace_folder(temporary, path)
        _sync_folder(path.parent)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`, and remove what has its name when the block ends."""
    temporary, descriptor = _claim(path, _make_folder)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # after an exchange it is what stood at `path`
        os.close(descriptor)


def _behind_links(path: Path) -> Path:
    """What a link leads to, through any number of links. Raises OSError for links in a circle, which lead nowhere."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


def _make_parent(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from None


def _make_folder(path: Path) -> int:
    path.mkdir()
    return os.open(path, os.O_RDONLY)


def _claim(path: Path, make: Callable[[Path], int]) -> tuple[Path, int]:
    """A temporary name for `path` that no other process uses, and the locked descriptor of what `make` made there."""
    for number in count():
        temporary = path.with_name(f".{path.name}.{number}.tmp")
        if not _remove_leftover(temporary):
            continue
        try:
            descriptor = make(temporary)
        except FileExistsError:  # another process was quicker
            continue
        if _lock(descriptor) is not False and _is_at(descriptor, temporary):
            return temporary, descriptor
        os.close(descriptor)
    raise AssertionError


def _lock(descriptor: int) -> bool | None:
    """Lock until the descriptor is closed; False where another holds the lock, None where locks are not to be had."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # of a file system that has none
        return None
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _remove_leftover(path: Path) -> bool:
    """Remove what a process that has ended left at a temporary name. False where one may still be using it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not (_lock(descriptor) and _is_at(descriptor, path)):
            return False
        shutil.rmtree(path) if stat.S_ISDIR(os.fstat(descriptor).st_mode) else path.unlink()
        return True
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # of a file system that does so by itself, or cannot
            raise
    finally:
        os.close(descriptor)


def _sync_file_system(path: Path) -> None:
    """Have all of the file system that holds a folder on the disk. Raises OSError where that fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY)
    failed = libc.syncfs(descriptor)
    number = ctypes.get_errno()
    os.close(descriptor)
    if failed:
        raise OSError(number, os.strerror(number))


def _exchange(one: Path, other: Path) -> bool:
    """Let two names change places at once; False where that is not to be had."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _replace_folder(temporary: Path, path: Path) -> None:
    """Rename a folder over a full one, which has to step aside. A process killed in between leaves that to _restore."""
    aside = temporary.with_suffix(".old")
    os.replace(path, aside)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(aside, path)
        raise
    _sync_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _restore(path: Path) -> None:
    """Put back what had stepped aside when a process was killed, or remove it where its successor stands."""
    form = re.compile(rf"\.{re.escape(path.name)}\.\d+\.old")
    aside = [entry for entry in path.parent.iterdir() if form.fullmatch(entry.name)] if path.parent.is_dir() else []
    for old in aside:
        if not _remove_leftover(old.with_suffix(".tmp")):
            continue
        if os.path.lexists(path):
            shutil.rmtree(old)
        else:
            os.replace(old, path)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Tell the output in an error of writing that says nothing, as of a full disk, or a temporary name."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
            raise
        parts = Path(os.fsdecode(error.filename)).parts
        temporary = next((at for at, part in enumerate(parts) if part.startswith(f".{path.name}.")), None)
        if temporary is not None:
            error.filename = str(path.joinpath(*parts[temporary + 1 :]))
            if error.filename2 is not None:
                del error.filename2  # of two names that a renaming has, the other is the output's own
        raise
