"""Shards: whose rows are whose, and what is put together."""

import errno
import os
from pathlib import Path

import pytest

from pipeline.base.errors import InputError
from pipeline.data.shards import SHARD_FILE, Shard, in_order, link_or_copy, read_shard, write_note


@pytest.mark.parametrize(("total", "batch", "count"), [(100, 8, 3), (5, 8, 4), (64, 64, 1), (0, 8, 2), (1000, 1, 7)])
def test_shards_are_whole_batches_and_together_all_rows(total: int, batch: int, count: int) -> None:
    parts = [Shard(number, count).rows(total, batch) for number in range(1, count + 1)]
    assert [row for part in parts for row in part] == list(range(total))
    assert all(part.start % batch == 0 for part in parts if part)
    assert max(map(len, parts)) - min(map(len, parts)) <= 2 * batch


def test_a_shard_is_a_number_of_a_number() -> None:
    assert read_shard("2/4") == Shard(2, 4)
    for text in ("0/4", "5/4", "2", "a/b", "-1/2", ""):
        with pytest.raises(InputError, match=f"shard: '{text}', where one such as 2/4"):
            read_shard(text)


def shards(folder: Path, count: int) -> list[Path]:
    paths = [folder / str(number) for number in range(1, count + 1)]
    for number, path in enumerate(paths, 1):
        path.mkdir()
        write_note(path, "align", Shard(number, count), {"batch": 8})
    return paths


def test_shards_are_put_in_order_whatever_order_they_are_given_in(tmp_path: Path) -> None:
    paths = shards(tmp_path, 11)
    assert in_order("align", paths[::-1]) == (paths, {"batch": 8})


def test_a_shard_that_is_missing_given_twice_or_another_is_named(tmp_path: Path) -> None:
    first, second, third = shards(tmp_path, 3)
    with pytest.raises(InputError, match=r"^shard 2/3 is missing among those given; make it with --shard"):
        in_order("align", [first, third])
    with pytest.raises(InputError, match=rf"^{first}: shard 1/3 again, after {first}; give each shard once"):
        in_order("align", [first, second, first])
    with pytest.raises(InputError, match=rf"^{second}: no shard\.json of extract, where a shard was expected"):
        in_order("extract", [second])
    with pytest.raises(InputError, match=rf"^{tmp_path}: no shard\.json of align"):
        in_order("align", [first, tmp_path])
    write_note(third, "align", Shard(3, 3), {"batch": 16})
    with pytest.raises(InputError, match=rf'^{third}: shard 3/3 made with .*"batch": 16.* where .*"batch": 8'):
        in_order("align", [first, second, third])
    write_note(third, "align", Shard(3, 4), {"batch": 8})
    with pytest.raises(InputError, match=rf"^{third}: shard 3/4 made with .* where one of 3 made with"):
        in_order("align", [first, second, third])
    (third / SHARD_FILE).write_text('{"stage": "align"}')
    with pytest.raises(InputError, match=r"shard\.json: shard: '', where one such as 2/4"):
        in_order("align", [third])


def test_a_file_is_linked_and_copied_where_it_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a"
    source.write_text("text")
    link_or_copy(source, tmp_path / "b")
    assert (tmp_path / "b").samefile(source)

    def refuse(*paths: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr("os.link", refuse)
    link_or_copy(source, tmp_path / "c")
    assert (tmp_path / "c").read_text() == "text"
    assert not (tmp_path / "c").samefile(source)
