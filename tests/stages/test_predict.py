"""predict: faces found and read, in Python and on the command line; what cannot be read is reported, the rest read."""

import csv
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.small_set import noise
from PIL import Image

from pipeline.__main__ import main
from pipeline.base.errors import InputError, SourceError
from pipeline.base.image_files import read_image
from pipeline.classifier import model_folder
from pipeline.data.labels import LABELS
from pipeline.media.frames import Frame
from pipeline.media.sources import open_sources
from pipeline.predictor import Predictor
from pipeline.stages.predict import Outputs, _batches, predict

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def film(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 24 frames and one second: a face that goes to the right, then leaves."""
    path = tmp_path_factory.mktemp("film") / "a film é.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 24)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        small = np.asarray(Image.fromarray(portrait).resize((307, 360)))
        for number in range(24):
            image = np.full((360, 640, 3), 90, np.uint8)
            if number < 16:
                image[:, 8 * number : 8 * number + 307] = small
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
    return path


def command(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "predict", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_batches_keep_order_and_bounds() -> None:
    sides = [10] * 100 + [3000] + [1000] * 3 + [10]
    frames = [Frame(str(i), np.empty((side, side, 3), np.uint8)) for i, side in enumerate(sides)]
    batches = list(_batches(iter(frames)))
    assert [frame.name for batch in batches for frame in batch] == [str(i) for i in range(len(sides))]
    assert [len(batch) for batch in batches] == [64, 36, 1, 2, 2]


def test_the_command_writes_lines_table_and_pictures(model: Path, portrait: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(portrait).save(tmp_path / "in/a portrait é.png")
    Image.fromarray(noise(1)[0]).save(tmp_path / "in/noise.png")
    done = command(tmp_path / "in", "--model", model, "--csv", tmp_path / "out.csv", "--annotated", tmp_path / "drawn")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # lines are asked for with --json -, where files are
    assert "2 images, 1 face, 1 image without a face" in done.stderr
    with open(tmp_path / "out.csv", newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["found", "none"]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a portrait é.png", "noise.png"]
    assert not np.array_equal(read_image(tmp_path / "drawn/a portrait é.png"), portrait)


def test_unreadable_images_are_told_and_end_in_failure(model: Path, portrait: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(portrait).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:5000])
    Image.fromarray(portrait).save(tmp_path / "d.jpg")
    done = command(tmp_path, "--model", model, "--json", tmp_path / "out.jsonl")
    assert done.returncode == 1
    assert done.stdout == ""
    assert [Path(line["file"]).name for line in lines((tmp_path / "out.jsonl").read_text())] == ["a.jpg", "d.jpg"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "b.jpg: an empty file" in errors[0]
    assert "c.jpg" in errors[1]
    assert "2 of 4 images could not be read" in errors[2]
    assert "Traceback" not in done.stderr


def test_a_film_is_followed_and_written_with_table_and_plot(model: Path, film: Path, tmp_path: Path) -> None:
    done = command(
        film,
        "--model",
        model,
        "--json",
        tmp_path / "out.jsonl",
        "--csv",
        tmp_path / "out.csv",
        "--annotated",
        tmp_path / "drawn",
        "--summary",
        tmp_path / "plot.png",
        "--every",
        0.16,
    )
    assert done.returncode == 0, done.stderr
    read = lines((tmp_path / "out.jsonl").read_text())
    assert [line["frame"] for line in read] == list(range(24))
    assert [line["time"] for line in read] == pytest.approx([number / 24 for number in range(24)], abs=1e-3)
    assert [[face["track"] for face in line["faces"]] for line in read[:16]] == [[1]] * 16
    assert read[-1]["faces"] == []
    lefts = [line["faces"][0]["box"][0] for line in read[:16]]
    assert lefts == pytest.approx([lefts[0] + 8 * number for number in range(16)], abs=8)
    with open(tmp_path / "out.csv", newline="") as file:
        assert [row["track"] for row in csv.DictReader(file)][:16] == ["1"] * 16
    with av.open(str(tmp_path / "drawn/a film é.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 24
    assert frames[0].shape == (360, 640, 3)
    with Image.open(tmp_path / "plot.png") as plot:
        assert min(plot.size) > 200
    assert "24 frames, " in done.stderr


def test_one_unreadable_video_of_many_inputs_costs_itself_alone(
    model: Path, film: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(portrait).save(tmp_path / "in/a.jpg")
    (tmp_path / "in/b.mp4").write_bytes(film.read_bytes()[:300])
    shutil.copy(film, tmp_path / "in/c.mp4")
    done = command(
        tmp_path / "in", "--model", model, "--json", tmp_path / "out.jsonl", "--annotated", tmp_path / "drawn"
    )
    assert done.returncode == 1
    assert f"error: {tmp_path}/in/b.mp4: neither an image nor a video" in done.stderr
    assert "error: 1 of 3 inputs could not be read" in done.stderr
    assert len(lines((tmp_path / "out.jsonl").read_text())) == 25
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["a.jpg.png", "c.mp4"]
    for name in ("a.jpg", "c.mp4"):
        (tmp_path / "in" / name).write_bytes(b"nothing")
    done = command(tmp_path / "in/b.mp4", tmp_path / "in/c.mp4", "--model", model, "--json", tmp_path / "none.jsonl")
    assert done.returncode == 1
    assert "none of 2 inputs could be read" in done.stderr
    assert not (tmp_path / "none.jsonl").exists()


def test_what_a_run_draws_is_not_read_by_the_next(model: Path, portrait: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(portrait).save(tmp_path / "a.jpg")
    for _ in range(2):
        done = command(
            tmp_path,
            "--model",
            model,
            "--annotated",
            tmp_path / "out/drawn",
            "--summary",
            tmp_path / "plot.png",
            "--json",
            "-",
        )
        assert done.returncode == 0, done.stderr
        assert [Path(line["file"]).name for line in lines(done.stdout)] == ["a.jpg"]
    assert [path.name for path in (tmp_path / "out/drawn").iterdir()] == ["a.jpg.png"]
    done = command(f"{tmp_path}/**/*.png", "--model", model, "--annotated", tmp_path / "out/drawn", "--json", "-")
    assert [Path(line["file"]).name for line in lines(done.stdout)] == ["plot.png"]


def test_a_file_beside_pictures_is_passed_over_and_named_once(
    model: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(portrait).save(tmp_path / "a.jpg")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    (tmp_path / "._a.jpg").write_bytes(b"\0\5\x16\7" + bytes(60))
    (tmp_path / "a.xmp").write_text("<x:xmpmeta/>")
    (tmp_path / "notes.txt").write_text("At the beach.\n")
    for words, count in (([tmp_path], 4), ([tmp_path / "*"], 3), (sorted(tmp_path.iterdir()), 4)):
        done = command(*words, "--model", model, "--csv", "-")
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2
        assert done.stderr.count(f"passed over: {count} other files (") == 1
        assert "Thumbs.db" in done.stderr


def test_one_video_or_image_is_drawn_to_a_file(model: Path, film: Path, portrait: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(portrait).resize((64, 75)).save(tmp_path / "a.png")
    command(film, "--model", model, "--annotated", tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 24
    command(tmp_path / "a.png", "--model", model, "--annotated", tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as image:
        assert image.size == (64, 75)  # its own
    done = command(film, tmp_path / "a.png", "--model", model, "--annotated", tmp_path / "both.mp4")
    assert (done.returncode, (tmp_path / "both.mp4").exists()) == (1, False)
    assert "both.mp4: holds one video" in done.stderr


def test_an_output_that_cannot_be_written_is_said_in_words(model: Path, portrait: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(portrait).save(tmp_path / "a.jpg")
    (tmp_path / "folder").mkdir()
    done = command(tmp_path / "a.jpg", "--model", model, "--json", tmp_path / "folder")
    assert done.stderr.splitlines() == [f"error: {tmp_path}/folder: Is a directory"]
    done = command(tmp_path / "a.jpg", "--model", model, "--summary", tmp_path / "plot.jpg")
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}/plot.jpg: a plot is written as .png, .pdf, .svg; give it such a name"
    ]


def test_a_sideways_image_is_turned_where_that_is_asked_for(portrait: np.ndarray) -> None:
    upright = Predictor()(portrait).faces[0]
    turning = Predictor(rotations=True)
    for quarters in (1, 3):
        turned = np.ascontiguousarray(np.rot90(portrait, quarters))
        assert Predictor()(turned).faces == ()
        (face,) = turning(turned).faces
        left, top, right, bottom = upright.box
        height, width = portrait.shape[:2]
        box = {1: (top, width - right, bottom, width - left), 3: (height - bottom, left, height - top, right)}[quarters]
        assert face.box == pytest.approx(box, abs=8)
        assert face.probabilities[upright.label] == pytest.approx(upright.probabilities[upright.label], abs=0.1)


def test_a_sideways_face_beside_an_upright_one_is_not_looked_for(portrait: np.ndarray) -> None:
    height, width = portrait.shape[:2]
    both = np.zeros((max(height, width), 2 * max(height, width), 3), np.uint8)
    both[:height, :width] = portrait
    both[:width, -height:] = np.rot90(portrait)
    (face,) = Predictor(rotations=True)(both).faces
    assert face.box[2] < width


def test_a_summary_is_of_one_input(model: Path, film: Path, portrait: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(portrait).save(tmp_path / "a.jpg")
    done = command(film, tmp_path / "a.jpg", "--model", model, "--summary", tmp_path / "plot.png")
    assert done.returncode == 1
    assert "plot.png: a plot is of one input, and these are 2" in done.stderr
    assert not (tmp_path / "plot.png").exists()


def test_no_output_takes_the_place_of_an_input_or_another_output(
    model: Path, portrait: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(portrait).save(tmp_path / "face.png")
    before = (tmp_path / "face.png").read_bytes()
    (tmp_path / "other.csv").hardlink_to(tmp_path / "face.png")
    for outputs in (Outputs(json=tmp_path / "face.png"), Outputs(csv=tmp_path / "other.csv")):
        with pytest.raises(InputError, match="is read, and would be lost"):
            predict(open_sources([str(tmp_path)]), Predictor(model), outputs)
    assert (tmp_path / "face.png").read_bytes() == before
    twice = Outputs(json=tmp_path / "out", csv=tmp_path / "." / "out")
    with pytest.raises(InputError, match="out: two outputs would be written here"):
        predict(open_sources([str(tmp_path)]), Predictor(model), twice)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option",
    [
        "--threads=0",
        "--every=1",
        "--every=10",
        "--every=-0.1",
        "--every=nan",
        "--min-face=0",
        "--uncertain=2",
        "--uncertain=nan",
    ],
)
def test_impossible_numbers_are_refused(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["pipeline", "predict", "photo.jpg", option])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"argument {option.partition('=')[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--csv", "-"], ["--csv", "/dev/stdout"], ["--json", "/dev/stdout"]])
def test_a_file_behind_standard_output_is_added_to_and_not_replaced(
    model: Path, portrait: np.ndarray, tmp_path: Path, option: list[str]
) -> None:
    Image.fromarray(portrait).save(tmp_path / "a.jpg")
    out = tmp_path / "out"
    out.write_text("before\n")
    with out.open("a") as file:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "predict", str(tmp_path / "a.jpg"), "--model", str(model), *option],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    before, *rest = out.read_text().splitlines()
    assert before == "before"
    assert len(rest) == (2 if option[0] == "--csv" else 1)
    assert str(tmp_path / "a.jpg") in rest[-1]


def test_a_run_that_is_told_to_end_leaves_nothing_half_written(model: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "predict", "-", "--model", str(model), "--json", str(tmp_path / "o.jsonl")],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    process.stdin.write(b"\x89PNG\r\n\x1a\n")
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not list(tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


def test_annotated_never_takes_the_place_of_another(
    model: Path, portrait: np.ndarray, film: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(portrait).save(photos / "a.jpg")
    Image.fromarray(portrait).save(photos / "a.jpg.png")
    done = command(photos, "--model", model, "--annotated", tmp_path / "out", "--json", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg.png", "a.jpg.png.png"]
    for name in ("out.jpg", "out.mkv"):
        done = command(photos / "a.jpg", "--model", model, "--annotated", tmp_path / name)
        assert (done.returncode, (tmp_path / name).exists()) == (1, False)
        assert f"{name}: videos are written as .mp4, images as .png" in done.stderr
    films = tmp_path / "films"
    films.mkdir()
    for name in ("a.mkv", "b.mp4"):
        shutil.copy(film, films / name)
    done = command(films, "--model", model, "--annotated", films)
    assert done.returncode == 1
    assert "b.mp4: is read, and would be lost" in done.stderr
    assert sorted(path.name for path in films.iterdir()) == ["a.mkv", "b.mp4"]


def test_two_films_of_one_name_are_not_written_over_each_other(model: Path, film: Path, tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        shutil.copy(film, tmp_path / folder / "film.mp4")
    films = (tmp_path / folder / "film.mp4" for folder in "ab")
    done = command(*films, "--model", model, "--annotated", tmp_path / "out")
    assert done.returncode == 1
    assert "film.mp4: two of the videos would be written here" in done.stderr


def test_pictures_come_by_standard_input(model: Path, portrait: np.ndarray) -> None:
    file = io.BytesIO()
    Image.fromarray(portrait).save(file, "PNG")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "predict", "-", "--model", str(model)],
        cwd=ROOT,
        input=file.getvalue(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = lines(done.stdout.decode())
    assert len(line["faces"]) == 1


class Camera:
    """Gives frames by the clock until it is lost."""

    name, moving, live, failed, dropped = "cam:0", True, True, 0, 3
    total: int | None = None

    def __init__(self, image: np.ndarray, end: BaseException | None) -> None:
        self.image, self.end = image, end

    def __enter__(self) -> "Camera":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        for number in range(5):
            yield Frame(self.name, self.image, number, number / 10)
        if self.end:
            raise self.end


@pytest.mark.parametrize("end", [None, SourceError("cam:0: lost"), KeyboardInterrupt()])
def test_what_a_camera_showed_is_kept_however_it_ends(
    model: Path, portrait: np.ndarray, tmp_path: Path, end: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    outputs = Outputs(tmp_path / "out.jsonl", None, tmp_path / "drawn", tmp_path / "plot.png", window=False)
    with caplog.at_level("INFO", "pipeline"):
        if isinstance(end, SourceError):
            with pytest.raises(SourceError, match="cam:0: lost"):
                predict([Camera(portrait, end)], Predictor(model), outputs)
        else:
            predict([Camera(portrait, end)], Predictor(model), outputs)
    assert len(lines((tmp_path / "out.jsonl").read_text())) == 5
    assert "3 older frames dropped to keep up" in caplog.text
    (film,) = (tmp_path / "drawn").iterdir()
    with av.open(str(film)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5
    assert (tmp_path / "plot.png").exists()


def test_a_lost_camera_is_told_after_the_next_one_was_read(model: Path, portrait: np.ndarray, tmp_path: Path) -> None:
    cameras = [Camera(portrait, SourceError("cam:0: lost")), Camera(portrait, None)]
    with pytest.raises(SourceError, match="cam:0: lost"):
        predict(cameras, Predictor(model), Outputs(json=tmp_path / "out.jsonl", window=False))
    assert len(lines((tmp_path / "out.jsonl").read_text())) == 10


def test_without_a_display_a_camera_is_read_all_the_same(
    model: Path,
    portrait: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    predict([Camera(portrait, None)], Predictor(model), Outputs())
    assert len(lines(capsys.readouterr().out)) == 5
    assert "no window: there is no display" in caplog.text
    with pytest.raises(InputError, match="no window can be shown: there is no display"):
        predict([Camera(portrait, None)], Predictor(model), Outputs(window=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/empty", "--model", "{model}"], "empty: no image or video in this folder"),
        (["{folder}/absent.png", "--model", "{model}"], "absent.png: no such file"),
        (["{model}", "--model", "{folder}/empty"], "no image or video in this folder"),
        (["{folder}/face.png", "--model", "{folder}/empty"], "empty: no model.json inside"),
    ],
)
def test_nothing_to_read_or_to_read_with_is_one_clear_line(
    model: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    Image.fromarray(noise(1)[0]).save(tmp_path / "face.png")
    done = command(*(argument.format(folder=tmp_path, model=model) for argument in arguments))
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_neither_torch_nor_what_only_training_needs_is_imported(model: Path, tmp_path: Path) -> None:
    Image.fromarray(noise(1)[0]).save(tmp_path / "noise.png")
    program = (
        "import sys; from pathlib import Path; from pipeline.stages.predict import Outputs, predict; "
        "from pipeline.media.sources import open_sources; from pipeline.predictor import Predictor; "
        "predict(open_sources([sys.argv[1]]), Predictor(Path(sys.argv[2]), no_face='whole'), Outputs()); "
        "print(sorted({'torch', 'sklearn', 'scipy', 'matplotlib', 'pandas', 'onnx', 'lmdb', 'av', 'pygame'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), str(model)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_model_that_ships_is_whole_small_and_finds_the_portrait_calm(portrait: np.ndarray) -> None:
    folders = {model_folder.find(name) for name in model_folder.SHIPPED}
    assert sum(path.stat().st_size for folder in folders for path in folder.iterdir()) <= 10_000_000
    folder = model_folder.read(model_folder.find("accurate"))
    assert set(folder.labels) == set(LABELS)
    (face,) = Predictor(folder)(portrait).faces
    assert face.probabilities["surprise"] + face.probabilities["fear"] < 0.5
