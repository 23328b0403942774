"""Outputs that cannot be written: the error names the output, and nothing of it stays."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pipeline.base.atomic import atomic_file, atomic_folder
from pipeline.base.console import in_words

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
