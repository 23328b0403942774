"""doctor: look whether everything that predict needs is there and works, and say what to do about what is not."""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT, CONSTRAINTS = ROOT / "pyproject.toml", ROOT / "constraints.txt"
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg")  # of the videos that people have
LITTLE_SPACE = 1 << 30  # bytes: a quarter of an hour of annotated video, and more
SIDE, FACE_SIDE = 512, 320  # pixels of the picture that the speed is measured on, and of the drawn face in it
SPEED_SECONDS, NET_SECONDS = 2.0, 0.5
SLOW = 5.0  # photographs a second, below which a live picture is no longer fluent in spite of faces being followed
COLOURS = {"ok": "32", "warn": "33", "fail": "31"}  # of ISO 6429: green, yellow, red
TITLE_WIDTH = 15


@dataclass(frozen=True)
class Finding:
    """state: `ok`; `warn` where one kind of input or output is missing and all else works; `fail` where predict cannot
    do its work. found: what there is. remedy: what to do about it.
    """

    state: str
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """title: what is looked at. look: gives what it finds, for a model folder, or None for the one that ships."""

    title: str
    look: Callable[[str | Path | None], Iterator[Finding]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="a model's name or folder (default: those that ship)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace) -> None:
    found: list[tuple[Check, Finding]] = []
    for check in CHECKS:
        for finding in examine(check, args.model):
            found.append((check, finding))
            if not args.json:
                print_finding(check.title, finding)
    states = [finding.state for _, finding in found]
    failed, warned = states.count("fail"), states.count("warn")
    if args.json:
        findings = [{"check": check.title, **asdict(finding)} for check, finding in found]
        print(json.dumps({"works": not failed, "findings": findings}, indent=2))
    elif not failed:
        print(f"\nEverything that predict needs works{f' (warnings: {warned})' if warned else ''}.")
    if failed:
        raise InputError(f"faults: {failed}; what to do about each is said above")


def examine(check: Check, model: str | Path | None) -> Iterator[Finding]:
    """What a check finds; one that breaks is a finding too."""
    try:
        yield from check.look(model)
    except InputError as error:
        yield Finding("fail", str(error))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding("fail", f"this check broke off ({reason})", f"see the other findings, or {_install()} anew")


def print_finding(title: str, finding: Finding) -> None:
    """A line of a table, and as many below it as there is more to say."""
    mark = f"{finding.state:<4}"
    if sys.stdout.isatty():
        mark = f"\033[{COLOURS[finding.state]}m{mark}\033[0m"
    width = max(40, min(shutil.get_terminal_size().columns, 120) - TITLE_WIDTH - 8)
    lines = textwrap.wrap(finding.found, width, break_on_hyphens=False)
    lines += textwrap.wrap(finding.remedy, width, initial_indent="-> ", subsequent_indent="   ", break_on_hyphens=False)
    print(f"{mark}  {title:<{TITLE_WIDTH}}  {lines[0]}")
    for line in lines[1:]:
        print(" " * (TITLE_WIDTH + 8) + line)
    sys.stdout.flush()


def check_python(model: str | Path | None) -> Iterator[Finding]:
    wanted = _project()["requires-python"].removeprefix(">=")
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {_cores()} cores"
    if sys.version_info[:2] >= tuple(map(int, wanted.split("."))):
        yield Finding("ok", found)
    else:
        yield Finding("fail", f"{found}, where {wanted} or later is needed", f"install Python {wanted} or later")


def check_packages(model: str | Path | None) -> Iterator[Finding]:
    versions = _versions(_project()["dependencies"])
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        yield Finding("fail", f"not installed: {', '.join(missing)}", _install())
    there = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    constraints = CONSTRAINTS.read_text() if CONSTRAINTS.exists() else ""
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", constraints, re.MULTILINE))
    other = [
        f"{name} {version} ({pinned[name]})"
        for name, version in versions.items()
        if version and version.split("+")[0] != pinned.get(name, version).split("+")[0]
    ]
    if other:
        yield Finding(
            "warn",
            f"other versions than those the project is tested with, which are in brackets: {', '.join(other)}",
            f"where something does not work: {_install()}",
        )
    if there:
        yield Finding("ok", there)


def check_model(model: str | Path | None) -> Iterator[Finding]:
    from pipeline.classifier import model_folder

    for path in sorted({model_folder.find(name) for name in ([model] if model else model_folder.SHIPPED)}):
        folder = model_folder.read(path)
        model_folder.Classifier(folder)
        yield Finding(
            "ok", f"{folder.name} {folder.version}, {len(folder.labels)} expressions, in {path}; its files are whole"
        )


def check_onnx_providers(model: str | Path | None) -> Iterator[Finding]:
    import onnxruntime

    from pipeline.base.onnx_runtime import CPU, PROVIDERS, installed_providers
    from pipeline.classifier import model_folder

    folder = model_folder.read(model_folder.find(model or model_folder.DEFAULTS["images"]))
    works = list(CPU)
    for name in installed_providers():
        if name in CPU:
            continue
        try:
            model_folder.Classifier(folder, providers=(name,))
        except InputError as error:
            fault, _, remedy = str(error).partition("; ")
            yield Finding("warn", fault, remedy)
        else:
            works.append(name)
    others = ", ".join(name for name in PROVIDERS if name not in works)
    yield Finding("ok", f"ONNX Runtime {onnxruntime.__version__} can run nets on {', '.join(works)}; not on {others}")


def check_detector(model: str | Path | None) -> Iterator[Finding]:
    from pipeline.base.hashing import sha256
    from pipeline.faces.detector import SHIPPED_MODELS, build_detector
    from pipeline.faces.mtcnn import MODELS

    for name, folder in {"mtcnn": MODELS, **{name: path.parent for name, path in SHIPPED_MODELS.items()}}.items():
        build_detector(name)
        damaged = [
            file
            for expected, file in map(str.split, (folder / "SHA256SUMS").read_text().splitlines())
            if file.endswith(".onnx") and sha256(folder / file) != expected
        ]
        if damaged:
            yield Finding(
                "fail",
                f"{folder / damaged[0]}: its sha256 is not the one in SHA256SUMS",
                "fetch the file anew: it is damaged",
            )
        else:
            yield Finding("ok", f"{name}, in {folder}: its files are whole")


def check_speed(model: str | Path | None) -> Iterator[Finding]:
    import numpy as np

    from pipeline.media.frames import Frame
    from pipeline.predictor import Predictor

    image = _picture_of_a_face()
    predictor = Predictor(model, threads=2)
    frame = Frame("photograph", image)
    (reading,) = predictor.read([frame])
    if len(reading.faces) != 1:
        yield Finding(
            "fail",
            f"{len(reading.faces)} faces found in a picture of one",
            f"the detector's files or its packages are not what they should be: {_install()}",
        )
        return
    rate = 1 / _seconds_a_call(lambda: predictor.read([frame]), SPEED_SECONDS)
    preprocessing = predictor.folder.preprocessing
    face = np.full((1, preprocessing.channels, preprocessing.height, preprocessing.width), 127, np.uint8)
    milliseconds = 1000 * _seconds_a_call(lambda: predictor.classifier(face), NET_SECONDS)
    found = (
        f"{rate:.0f} photographs of {SIDE}x{SIDE} a second, face detection included; {milliseconds:.2f} ms a face "
        f"without; {_first_result(predictor.folder.path, image):.1f} s from the start of predict to its first result"
    )
    if rate >= SLOW:
        yield Finding("ok", found)
    else:
        yield Finding(
            "warn", found, "live pictures will stutter: close other programs, look for larger faces only (--min-face)"
        )


def check_precision(model: str | Path | None) -> Iterator[Finding]:
    device = "cpu"
    try:
        import torch

        from pipeline.caffe.precision import faster_precision
    except ImportError:
        yield Finding("warn", "torch is not installed; only training needs it", _install("train"))
        return
    if torch.cuda.is_available():
        device = "cuda"
    precision, reason = faster_precision(device)
    yield Finding("ok", f"training with precision auto takes {precision} on {device}: {reason}")


def check_videos(model: str | Path | None) -> Iterator[Finding]:
    import av
    import numpy as np

    from pipeline.media.sinks.video import VideoWriter as NewVideo
    from pipeline.media.sources import VideoReader

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with NewVideo(path, None) as video:
            for index in range(10):
                video.write(np.full((64, 96, 3), 20 * index, np.uint8), index / 10)
        with VideoReader(path) as source:
            means = [frame.image.mean() for frame in source]
    if not np.allclose(means, np.arange(10) * 20, atol=8):
        yield Finding(
            "fail", "a video comes back other than it was written", f"PyAV is not what it should be: {_install()}"
        )
        return
    lacking = [name for name in CODECS if name not in av.codecs_available]
    found = f"PyAV {av.__version__} writes MP4 (H.264, AAC) and reads {', '.join(sorted(set(CODECS) - set(lacking)))}"
    if lacking:
        yield Finding("warn", f"{found}; it lacks {', '.join(lacking)}", f"take PyAV's own build: {_install()}")
    else:
        yield Finding("ok", found)


def check_cameras(model: str | Path | None) -> Iterator[Finding]:
    from pipeline.media.sources.camera import list_cameras

    if sys.platform != "linux":
        yield Finding("warn", f"not listed on {platform.system()}", "try one: python -m pipeline predict cam")
        return
    cameras = list_cameras()
    for camera in cameras:
        found = f"cam:{camera.index}: {camera.name}, {camera.path}"
        if camera.fault:
            fault, _, remedy = camera.fault.partition("; ")
            yield Finding("warn", f"{found}: {fault}", remedy)
        else:
            yield Finding("ok", found)
    if not cameras:
        yield Finding(
            "warn",
            "none",
            "plug one in; a container is given one by docker run --device /dev/video0. Files and streams need none",
        )


def check_display(model: str | Path | None) -> Iterator[Finding]:
    from pipeline.media.sinks import display_fault

    fault = display_fault()
    if fault:
        yield Finding(
            "warn", f"no window: {fault}", "everything but the window works: give --json, --csv or --annotated"
        )
    else:
        yield Finding("ok", "a window can be shown")


def check_space(model: str | Path | None) -> Iterator[Finding]:
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        yield Finding("warn", f"{folder} cannot be written to ({error.strerror})", "give outputs another folder")
        return
    found = f"{free / (1 << 30):.1f} GB free in {folder}"
    if free < LITTLE_SPACE:
        yield Finding("warn", found, "make room, or give outputs another disk")
    else:
        yield Finding("ok", found)


def check_real_caffe(model: str | Path | None) -> Iterator[Finding]:
    from pipeline.caffe.real_caffe import CONTAINER_ENGINES, HOW_TO_GET, find_missing

    root = os.environ.get("CAFFE_ROOT")
    found = [where for where in (root, *CONTAINER_ENGINES, "conda") if where and not find_missing(where)]
    if found:
        yield Finding("ok", f"for engine: caffe, in {', '.join(found)}")
    else:
        lacking = f"{find_missing(root)} (CAFFE_ROOT)" if root else "found in no container engine, conda or CAFFE_ROOT"
        yield Finding("warn", f"{lacking}; only `engine: caffe` needs that", HOW_TO_GET["a root"])


def _check_extra(extra: str) -> Callable[[str | Path | None], Iterator[Finding]]:
    def look(model: str | Path | None) -> Iterator[Finding]:
        versions = _versions(_project()["optional-dependencies"][extra])
        missing = [name for name, version in versions.items() if version is None]
        if missing:
            yield Finding("warn", f"not installed: {', '.join(missing)}; only `{extra}` needs that", _install(extra))
        else:
            yield Finding("ok", ", ".join(f"{name} {version}" for name, version in versions.items()))

    return look


CHECKS = (
    Check("Python", check_python),
    Check("packages", check_packages),
    Check("model", check_model),
    Check("providers", check_onnx_providers),
    Check("face detector", check_detector),
    Check("speed", check_speed),
    Check("precision", check_precision),
    Check("videos", check_videos),
    Check("cameras", check_cameras),
    Check("display", check_display),
    Check("space", check_space),
    Check("real Caffe", check_real_caffe),
    Check("server", _check_extra("serve")),
    Check("bot", _check_extra("bot")),
)


def _install(extra: str = "") -> str:
    """The command that installs the project, with an extra, as this copy of it was."""
    if not PYPROJECT.exists():
        return f"pip install 'caffe-expressions[{extra}]'" if extra else "pip install caffe-expressions"
    return f"pip install -c constraints.txt -e '.[{extra}]'" if extra else "pip install -c constraints.txt -e ."


def _project() -> dict:
    """What the project needs: as pyproject.toml says, or in an installed wheel, which has none, its metadata."""
    if PYPROJECT.exists():
        with open(PYPROJECT, "rb") as file:
            return tomllib.load(file)["project"]
    about = metadata.metadata("caffe-expressions")
    needed: list[str] = about.get_all("Requires-Dist") or []
    return {
        "requires-python": about["Requires-Python"],
        "dependencies": [line for line in needed if "extra ==" not in line],
        "optional-dependencies": {
            extra: [line for line in needed if re.search(rf"extra == ['\"]{extra}['\"]", line)]
            for extra in about.get_all("Provides-Extra") or []
        },
    }


def _versions(requirements: list[str]) -> dict[str, str | None]:
    """Installed versions of the packages that are asked for, as pyproject.toml has them; None of one that is not."""
    versions: dict[str, str | None] = {}
    for requirement in requirements:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _cores() -> int:
    """Of the processor, that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _picture_of_a_face() -> "np.ndarray":
    """A drawn face in the middle of a grey picture, (SIDE, SIDE, 3) uint8."""
    import cv2
    import numpy as np

    from pipeline.data.synthetic.sample import draw_faces

    (face,) = draw_faces(1, seed=0)
    image = np.full((SIDE, SIDE, 3), 127, np.uint8)
    inside = slice((SIDE - FACE_SIDE) // 2, (SIDE + FACE_SIDE) // 2)
    image[inside, inside] = cv2.resize(face.pixels, (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_CUBIC)[..., None]
    return image


def _seconds_a_call(act: Callable[[], object], seconds: float) -> float:
    """The mean over as many calls as there are in so many seconds."""
    start = time.perf_counter()
    calls = 0
    while (spent := time.perf_counter() - start) < seconds or not calls:
        act()
        calls += 1
    return spent / calls


def _first_result(model: Path, image: "np.ndarray") -> float:
    """Seconds that a new process takes until it has read an image."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photograph.png"
        Image.fromarray(image).save(path)
        command = [sys.executable, "-m", "pipeline", "predict", str(path), "--model", str(model.resolve())]
        start = time.perf_counter()
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout
            line = process.stdout.readline()
            seconds = time.perf_counter() - start
            _, errors = process.communicate()
    if not line:
        raise InputError(f"predict gave no result: {' '.join(errors.split())[-300:]}")
    return seconds
