"""Outputs are whole or not there: of a disk that is full, a process that is killed, a power cut; errors name them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from pipeline.base import atomic
from pipeline.base.atomic import atomic_file, atomic_folder
from pipeline.base.console import in_words
from pipeline.base.errors import InputError

Make = Callable[[Path], AbstractContextManager[object]]


@pytest.mark.parametrize("path", ["", ".", "folder", "folder/"])
def test_a_folder_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    with pytest.raises(IsADirectoryError, match=f"Is a directory: '{Path(path)}'"), atomic_file(Path(path)):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
def test_a_file_holds_no_output(tmp_path: Path, make: Make) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"Not a directory: '.*/file'"), make(tmp_path / "file/output"):
        pass


@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
def test_no_error_shows_a_temporary_name(tmp_path: Path, make: Make) -> None:
    """As of a renaming, which has two names, and of a file inside a folder that is being written."""
    output = tmp_path / "output"
    for inside in ("", "/deep/file"):
        temporary = f"{tmp_path}/.output.4711.tmp{inside}"
        with pytest.raises(OSError, match="denied") as caught, make(output):
            raise PermissionError(13, "Permission denied", temporary, None, str(output))
        assert in_words(caught.value) == f"{output}{inside}: Permission denied"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write to: Linux's /proc")
@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
def test_an_error_names_the_output(make: Make) -> None:
    with pytest.raises(OSError, match=r": '/proc/output'$"), make(Path("/proc/output")):
        pass


@pytest.mark.parametrize("output", [".", "set", "link"])
@pytest.mark.parametrize("read", ["set", "set/Training/a.png"])
def test_a_folder_does_not_replace_what_it_is_made_from(tmp_path: Path, output: str, read: str) -> None:
    (tmp_path / "set/Training").mkdir(parents=True)
    (tmp_path / "set/Training/a.png").touch()
    (tmp_path / "link").symlink_to("set")
    with (
        pytest.raises(InputError, match=rf"{read}, which is read, is there and would be lost; give another folder"),
        atomic_folder(tmp_path / output, own=("Training", "set", "link"), inputs=[tmp_path / read]),
    ):
        pass
    assert (tmp_path / "set/Training/a.png").exists()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(output: Path, make: Make, text: str) -> None:
    with make(output) as place:
        if isinstance(place, Path):
            (place / "file").write_text(text)
        else:
            place.write(text.encode())  # type: ignore[attr-defined]


def content(output: Path) -> str:
    return (output / "file" if output.is_dir() else output).read_text()


class Disk:
    """What a power cut would leave: of each name what was on the disk when it got that name, and when it was synced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, str]] = []
        for module, name in ((os, "fsync"), (atomic, "_sync_file_system"), (os, "replace"), (atomic, "_exchange")):
            monkeypatch.setattr(module, name, self._recorded(name.strip("_"), getattr(module, name)))

    def _recorded(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            first = arguments[0]
            place = Path(f"/proc/self/fd/{first}").readlink() if isinstance(first, int) else arguments[-1]
            self.calls.append((name, Path(str(place)).name))
            return function(*arguments)

        return call


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs to see what a descriptor is of: Linux's /proc")
@pytest.mark.parametrize("replaced", [False, True])
def test_a_power_cut_after_success_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, replaced: bool
) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    if replaced:
        fill(file, atomic_file, "old")
        fill(folder, atomic_folder, "old")
    disk = Disk(monkeypatch)
    fill(file, atomic_file, "new")
    assert disk.calls == [("fsync", ".file.0.tmp"), ("replace", "file"), ("fsync", tmp_path.name)]
    disk.calls.clear()
    fill(folder, atomic_folder, "new")
    assert disk.calls[0] == ("sync_file_system", ".folder.0.tmp")
    assert disk.calls[1] == ("exchange" if replaced else "replace", "folder")
    assert disk.calls[-1] == ("fsync", tmp_path.name)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    """By the calls that the system sees."""
    trace = tmp_path / "trace"
    (tmp_path / "folder").mkdir()
    code = f"""if True:
        from pathlib import Path
        from pipeline.base.atomic import atomic_folder
        with atomic_folder(Path({str(tmp_path / "folder")!r})) as folder:
            for number in range(9):
                (folder / f"{{number}}").write_text("text")
        """
    calls = "trace=syncfs,sync,fsync,rename,renameat2,unlink,unlinkat,rmdir"
    done = subprocess.run(["strace", "-f", "-e", calls, "-o", trace, sys.executable, "-c", code], check=False)
    if done.returncode or not trace.exists():
        pytest.skip("strace may not trace here")
    seen = re.findall(r"\b(syncfs|sync|fsync|rename|renameat2|rmdir|unlinkat)\(", trace.read_text())
    removal = next(at for at, call in enumerate(seen) if call in ("rmdir", "unlinkat"))  # of what stood there before
    assert seen[0] in ("syncfs", "sync")
    assert seen[1].startswith("rename")
    assert seen[removal - 1] == "fsync"


WRITE = """if True:
    import os, sys, time
    from pathlib import Path
    from pipeline.base import atomic
    with getattr(atomic, sys.argv[1])(Path(sys.argv[2])) as place:
        if isinstance(place, Path):
            (place / "inside").mkdir()
            (place / "inside/file").write_text("unfinished")
        else:
            place.write(b"unfinished")
        print("writing", flush=True)
        time.sleep(60)
"""


def start_writing(make: Make, output: Path) -> subprocess.Popen[bytes]:
    name = make.__name__
    process = subprocess.Popen([sys.executable, "-c", WRITE, name, output], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    return process


@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path: Path, make: Make) -> None:
    output = tmp_path / "output"
    (tmp_path / ".output.txt.tmp").touch()  # not a name that is given here
    (tmp_path / ".output2.0.tmp").touch()  # another's
    with start_writing(make, output) as process:
        process.send_signal(signal.SIGKILL)
    assert names(tmp_path) == [".output.0.tmp", ".output.txt.tmp", ".output2.0.tmp"]
    fill(output, make, "new")
    assert names(tmp_path) == [".output.txt.tmp", ".output2.0.tmp", "output"]
    assert content(output) == "new"


@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
def test_what_a_living_process_writes_stays(tmp_path: Path, make: Make) -> None:
    output = tmp_path / "output"
    with start_writing(make, output) as process:
        try:
            fill(output, make, "new")
            assert names(tmp_path) == [".output.0.tmp", "output"]
        finally:
            process.kill()
    assert content(output) == "new"


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_name_that_cannot_be_locked_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    left = tmp_path / ".output.0.tmp"
    if kind == "link":
        left.symlink_to(tmp_path / "elsewhere")
    else:
        left.touch() if kind == "file" else left.mkdir()
        monkeypatch.setattr(atomic.fcntl, "flock", lambda *arguments: (_ for _ in ()).throw(OSError(95, "no locks")))
    fill(tmp_path / "output", atomic_file, "new")
    assert names(tmp_path) == [".output.0.tmp", "output"]


@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path, make: Make, there: bool) -> None:
    target, link = tmp_path / "disk/target", tmp_path / "link"
    if there:
        fill(target, make, "old")
    (tmp_path / "between").symlink_to("disk/target")
    link.symlink_to(tmp_path / "between")
    fill(link, make, "new")
    assert link.is_symlink()
    assert (content(target), content(link)) == ("new", "new")
    assert names(tmp_path / "disk") == ["target"]
    with suppress(ValueError), make(link):
        raise ValueError
    assert content(link) == "new"


@pytest.mark.parametrize("make", [atomic_file, atomic_folder])
def test_links_in_a_circle_are_refused(tmp_path: Path, make: Make) -> None:
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    with pytest.raises(OSError, match=r"symbolic links: '.*/one'"), make(tmp_path / "one"):
        pass


def test_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match="pipe: a pipe or device where a file is to be written"):
            fill(tmp_path / name, atomic_file, "new")
    assert (tmp_path / "pipe").is_fifo()


def test_something_always_stands_at_the_name(tmp_path: Path) -> None:
    output, other = tmp_path / "output", tmp_path / "other"
    fill(output, atomic_folder, "old")
    other.mkdir()
    if not atomic._exchange(output, other) or not atomic._exchange(output, other):
        pytest.skip("names cannot be exchanged here")
    missing, done = [], threading.Event()

    def look() -> None:
        while not done.is_set():
            if not (output / "file").exists():
                missing.append(True)

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(30):
        fill(output, atomic_folder, str(number))
    done.set()
    looking.join()
    assert not missing


REPLACE = """if True:
    import os, sys
    from pathlib import Path
    from pipeline.base import atomic
    atomic._exchange = lambda one, other: False
    replace, steps = os.replace, int(sys.argv[2])
    def counted(one, other):
        global steps
        if steps == 0:
            os.kill(os.getpid(), 9)
        steps -= 1
        replace(one, other)
    os.replace = counted
    atomic.shutil.rmtree = lambda *arguments, **options: os.kill(os.getpid(), 9)
    with atomic.atomic_folder(Path(sys.argv[1])) as place:
        (place / "file").write_text("new")
"""


@pytest.mark.parametrize(("steps", "left"), [(0, "old"), (1, "old"), (2, "new")])
def test_where_names_cannot_be_exchanged_the_next_start_restores(tmp_path: Path, steps: int, left: str) -> None:
    """Killed before the first renaming, between the two, and after both."""
    output = tmp_path / "output"
    fill(output, atomic_folder, "old")
    done = subprocess.run([sys.executable, "-c", REPLACE, output, str(steps)], check=False)
    assert done.returncode == -signal.SIGKILL
    with suppress(KeyError), atomic_folder(output):
        raise KeyError
    assert names(tmp_path) == ["output"]
    assert content(output) == left
