"""Files that a word stands for: folders, patterns and lists, with whatever names file systems allow."""

import os
from pathlib import Path

import pytest
from helpers.moving_pictures import drawn, write_video
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.base.console import printable
from pipeline.base.errors import InputError
from pipeline.media.sources import ImageFiles, SourceError, VideoReader, open_sources, paths
from pipeline.media.sources.paths import read_list

ODD_NAMES = (
    "with space.png",
    "é ü 笑.png",
    "line\nbreak.png",
    "-dash.png",
    "cam:9.png",
    "a:b.png",
    "\udce9\udcff.png",
    "face[1].png",
    "100%.png",
    "quote'\".png",
)


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), "red").save(path, format="PNG")
    return path


def names(*words: object) -> list[str]:
    (source,) = open_sources([str(word) for word in words])
    assert isinstance(source, ImageFiles)
    with source:
        return [frame.name for frame in source]


def test_a_folder_gives_the_images_below_it_in_order_each_once(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/down/c.png"):
        image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (source,) = open_sources([str(tmp_path), str(tmp_path / "b.png"), str(tmp_path / "*.png")])
    assert isinstance(source, ImageFiles)
    assert (source.total, source.root, source.moving, source.live) == (3, tmp_path, False, False)
    assert [(frame.name, frame.index, frame.time) for frame in source] == [
        (str(tmp_path / name), index, None) for index, name in enumerate(("a.JPG", "b.png", "deep/down/c.png"))
    ]
    assert source.failed == 0


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_name_is_read_by_itself_from_its_folder_and_from_a_list(tmp_path: Path, name: str) -> None:
    path = image(tmp_path / "folder" / name)
    assert names(path) == [str(path)]
    assert names(path.parent) == [str(path)]
    assert names(path.parent / "*.png") == [str(path)]
    if "\n" not in name:
        (tmp_path / "list.txt").write_bytes(b"folder/" + os.fsencode(name))
        assert names(tmp_path / "list.txt") == [str(path)]


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path: Path) -> None:
    image(tmp_path / "face[1].png")
    image(tmp_path / "face1.png")
    assert names(tmp_path / "face[1].png") == [str(tmp_path / "face[1].png")]
    assert names(tmp_path / "face[12].png") == [str(tmp_path / "face1.png")]


def test_files_are_told_apart_by_what_they_hold_where_the_name_does_not_say(tmp_path: Path) -> None:
    image(tmp_path / "picture").rename(tmp_path / "picture.part")
    write_video(tmp_path / "video.mkv", drawn(2)).rename(tmp_path / "video.part")
    pictures, video = open_sources([str(tmp_path / "*.part")])
    assert isinstance(pictures, ImageFiles)
    assert isinstance(video, VideoReader)
    assert [frame.name for frame in pictures] == [str(tmp_path / "picture.part")]
    with video:
        assert len(list(video)) == 2


def test_videos_of_a_folder_follow_its_images_each_a_source_of_its_own(tmp_path: Path) -> None:
    write_video(tmp_path / "1.MP4", drawn(2))
    image(tmp_path / "2.png")
    write_video(tmp_path / "down" / "3.mkv", drawn(3))
    sources = open_sources([str(tmp_path), str(tmp_path / "1.MP4")])
    assert [source.name for source in sources] == [str(tmp_path / name) for name in ("2.png", "1.MP4", "down/3.mkv")]
    assert [source.moving for source in sources] == [False, True, True]


def test_what_this_run_writes_is_not_read_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.png", "photos/out/b.png", "photos/c.png"):
        image(tmp_path / name)
    Path("list.txt").write_text("photos\n")
    for words in (["photos"], ["photos/**/*.png"], ["list.txt"], ["photos/a.png", "photos/c.png", "photos/out"]):
        for out in (Path("photos/out"), tmp_path / "photos/../photos/out"):
            (source,) = open_sources(words, [out])
            assert [frame.name for frame in source] == ["photos/a.png", "photos/c.png"]
    assert "passed over: 1 other file (out)" in caplog.text


def test_among_several_words_a_folder_without_pictures_or_a_dead_link_costs_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dead.png").symlink_to("gone.png")
    (source,) = open_sources([str(tmp_path / name) for name in ("a.png", "dead.png", "empty")])
    assert [frame.name for frame in source] == [str(tmp_path / "a.png")]
    assert source.failed == 1
    assert "passed over: 1 other file (empty)" in caplog.text
    assert f"{tmp_path}/dead.png: cannot be read as an image: No such file" in caplog.text


def test_a_list_is_read_with_labels_or_without(tmp_path: Path) -> None:
    for name in ("a.png", "b c.png", "d 3.png", "deep/e.png"):
        image(tmp_path / name)
    (tmp_path / "list.lst").write_bytes(
        b"\xef\xbb\xbfa.png 0\r\nb c.png 6\n\nd 3.png\ndeep/e.png -1\n" + bytes(tmp_path / "a.png")
    )
    assert names(tmp_path / "list.lst") == [
        str(tmp_path / name) for name in ("a.png", "b c.png", "d 3.png", "deep/e.png")
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a.png\n\ngone.png 3\n", r"list\.txt:3: no such file: .*/gone\.png; a line is a path relative"),
        (b"a.png\n..\n", r"list\.txt:2: no such file"),
        (b"\n \n", "an empty list"),
        (b"\x89PNG\0", "no list of files"),
        (b"a\xff\x07b\n", r"list\.txt:1: no such file: .*a\\udcff\\x07b"),
    ],
)
def test_a_list_with_a_line_that_is_no_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(SourceError, match=message) as caught:
        open_sources([str(tmp_path / "list.txt")])
    assert "\n" not in str(caught.value)


NAMES = st.text(st.characters(exclude_characters="/\0\n\r", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name.strip() and not name.startswith("\ufeff") and name not in (".", "..")
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(NAMES, st.sampled_from(["", " 0", " 12", " -1"])),
        min_size=1,
        max_size=6,
        unique_by=lambda line: line[0],
    )
)
def test_a_list_names_the_files_it_was_made_of(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("lists")
    for name, _ in lines:
        (folder / name).touch()
    path = folder.parent / f"{folder.name}.lst"
    path.write_text("".join(f"{folder.name}/{name}{label}\n" for name, label in lines), newline="")
    written = [name + label for name, label in lines]
    if not any(
        (folder / name).exists() for name, line in zip((n for n, _ in lines), written, strict=True) if name != line
    ):
        return
    assert read_list(path).images == [
        folder / (line if (folder / line).exists() else name) for (name, _), line in zip(lines, written, strict=True)
    ]


def test_lists_hold_folders_and_utf_16(tmp_path: Path) -> None:
    for name in ("a é.png", "deep/b.png", "deep/c.png"):
        image(tmp_path / name)
    (tmp_path / "list.txt").write_text("a é.png\r\ndeep\r\n", encoding="utf-16", newline="")
    assert names(tmp_path / "list.txt") == [str(tmp_path / name) for name in ("a é.png", "deep/b.png", "deep/c.png")]
    for encoding in ("utf-16-le", "utf-16-be", "utf-8-sig"):
        for end in ("\n", "\r\n", "\r"):
            (tmp_path / "list.txt").write_text(f"a é.png{end}deep{end}", encoding=encoding, newline="")
            assert len(names(tmp_path / "list.txt")) == 3
    (tmp_path / "list.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(SourceError, match="it begins as UTF-16, and is not"):
        open_sources([str(tmp_path / "list.txt")])


def test_a_text_is_a_list_if_its_lines_are_files(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    image(tmp_path / "deep/b.png")
    (tmp_path / "list.txt").write_text("deep/b.png\n")
    (tmp_path / "notes.txt").write_text("At the beach.\n")
    words = [tmp_path / name for name in ("a.png", "list.txt", "notes.txt")]
    assert names(*words) == [str(tmp_path / "a.png"), str(tmp_path / "deep/b.png")]
    (tmp_path / "list.txt").write_text("deep/b.png\ngone.png\n")
    with pytest.raises(SourceError, match=r"list\.txt:2: no such file"):
        names(*words)
    with pytest.raises(SourceError, match=r"notes\.txt:1: no such file"):
        names(tmp_path / "notes.txt")


def test_folders_behind_symbolic_links_are_followed_each_once(tmp_path: Path) -> None:
    image(tmp_path / "elsewhere/a.png")
    image(tmp_path / "in/deep/b.png")
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/again").symlink_to(tmp_path / "in/deep")
    assert names(tmp_path / "in") == [str(tmp_path / "in" / name) for name in ("deep/b.png", "link/a.png")]


def test_a_pipe_is_refused_and_passed_over_in_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(SourceError, match=r"a\.png: a pipe \(FIFO\) where a file or folder"):
        open_sources([str(tmp_path / "a.png")])
    image(tmp_path / "b.png")
    assert names(tmp_path) == [str(tmp_path / "b.png")]


def test_heic_is_passed_over_where_nothing_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(paths, "reads_heic", lambda: False)
    image(tmp_path / "a.png")
    for name in ("IMG_1.HEIC", "IMG_2.heic"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    assert names(tmp_path) == [str(tmp_path / "a.png")]
    assert "passed over: 2 other files (IMG_1.HEIC, IMG_2.heic; HEIC needs `pip install" in caplog.text


@given(st.text(st.characters(exclude_categories=[])))
def test_printable_names_are_one_line_that_tells_them_apart(name: str) -> None:
    assert printable(name).isprintable()
    if name.isprintable():
        assert printable(name) == name


def test_inputs_that_stand_for_nothing_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for word, message in (
        (tmp_path / "empty", "no image or video in this folder"),
        (tmp_path / "absent.png", "no such file or folder"),
        (tmp_path / "*.png", "no file matches it"),
        ("null\0byte", r"null\\x00byte: no such file"),
        ("", "an empty name"),
    ):
        with pytest.raises(InputError, match=message):
            open_sources([str(word)])


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read every folder")
def test_a_folder_that_may_not_be_listed_is_told(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(SourceError, match="closed: cannot be listed: Permission denied"):
        open_sources([str(tmp_path)])


def test_unreadable_files_are_counted_and_the_rest_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"")
    image(tmp_path / "3.png")
    (source,) = open_sources([str(tmp_path)])
    with caplog.at_level("ERROR", logger="pipeline"):
        frames = [(Path(frame.name).name, frame.index) for frame in source]
    assert frames == [("1.png", 0), ("3.png", 2)]
    assert source.failed == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"error: {tmp_path / '2.png'}: an empty file where an image was expected"
    ]
