"""The static page: what is written, and in headless Chromium that it reads as Python does and asks nobody else."""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from helpers.chromium import CHROMIUM, MISSING, heat_difference, launch_with_camera, started_playwright, write_films
from helpers.local_server import body, serve
from helpers.portraits import background, portrait_file, put
from helpers.small_set import noise
from helpers.trained_net import make_trained_net
from PIL import Image

from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.classifier.model_folder import MODELS, ModelError
from pipeline.data.synthetic.sample import draw_faces
from pipeline.page import TYPES
from pipeline.predictor import Predictor
from pipeline.stages import web
from pipeline.web.static_page import PACKAGE, RUNTIME, RuntimeMissingError, write_static_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
needs_runtime = pytest.mark.skipif(
    not (RUNTIME / "node_modules" / PACKAGE).is_dir(),
    reason="no ONNX Runtime Web (npm ci --ignore-scripts --prefix pipeline/web/runtime)",
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
PREFIX = "/some/where/"  # the path of the page on its server
TOLERANCE = 0.03  # of probabilities
HEAT_TOLERANCE = 0.05  # of heat maps, whose values are 0 to 1
PATIENCE = 120_000  # milliseconds for what takes a second on an idle machine
READ = """async (pictures) => {
  const { readPicture } = await import("./api.js");
  const readings = [];
  for (const picture of pictures) {
    const blob = new Blob([Uint8Array.from(atob(picture), (digit) => digit.charCodeAt(0))]);
    readings.push(await readPicture(blob).catch(({ title, detail }) => ({ title, detail })));
  }
  return readings;
}"""
MOVING = """async (picture) => {
  const { Live } = await import("./api.js");
  const image = await createImageBitmap(new Blob([Uint8Array.from(atob(picture), (digit) => digit.charCodeAt(0))]));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d").drawImage(image, 0, 0);
  const readings = [];
  let live;
  return new Promise((resolve, reject) => {
    const next = () => (readings.length < 2 ? live.send(canvas, readings.length, true) : resolve(readings));
    const reading = (message) => {
      readings.push(message);
      next();
    };
    live = new Live({ ready: next, reading, problem: reject, closed: reject });
  });
}"""


def folder_of(root: Path) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answers with the files of a folder, as a server does that knows nothing of the page."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        path = root / (request.path.removeprefix(PREFIX) or "index.html")
        if not request.path.startswith(PREFIX) or not path.is_file():
            request.send_error(404)
            return
        types = {**TYPES, ".json": "application/json", ".wasm": "application/wasm"}
        body(path.read_bytes(), types.get(path.suffix, "application/octet-stream"))(request)

    return answer


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def pictures() -> list[bytes]:
    """Ten: a JPEG, two faces before a background, the background alone, and a drawn face of each expression."""
    two = put(put(background(1), 120, 160, 200), 350, 160, 150, pale=True)
    found = [portrait_file(), png(two), png(background())]
    for drawn in draw_faces(7, 3):
        large = cv2.resize(drawn.pixels, (192, 192), interpolation=cv2.INTER_CUBIC)
        found.append(png(cv2.copyMakeBorder(large, 48, 48, 48, 48, cv2.BORDER_REPLICATE)))
    return found


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the model `fast`."""
    folder = tmp_path_factory.mktemp("static") / "page"
    write_static_page(Predictor("fast"), folder)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    films = tmp_path_factory.mktemp("films")
    write_films(films, portrait_file())
    with started_playwright() as playwright, launch_with_camera(playwright, films / "camera.mjpeg") as browser:
        yield browser


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Callable[..., "Page"]]:
    """Opens a folder's page; at the end it must have failed nowhere, and have asked nobody but its own server."""
    faults: list[str] = []
    with ExitStack() as stack:

        def open_page(folder: Path, script: str = "") -> "Page":
            url = f"http://127.0.0.1:{stack.enter_context(serve(folder_of(folder)))}"
            context = stack.enter_context(browser.new_context())
            context.set_default_timeout(PATIENCE)
            own = (f"{url}{PREFIX}", f"blob:{url}")
            context.on("request", lambda asked: None if asked.url.startswith(own) else faults.append(asked.url))
            page = context.new_page()
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.on("console", lambda message: faults.append(message.text) if "Policy" in message.text else None)
            page.add_init_script(script)
            page.goto(f"{url}{PREFIX}")
            expect(page.locator("#connection")).not_to_have_attribute("data-state", "waiting", timeout=PATIENCE)
            return page

        yield open_page
    assert faults == []


def read_in(page: "Page", files: list[bytes]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(READ, [base64.b64encode(file).decode() for file in files])
    return found


def check_same(read: list[dict[str, Any]], predictor: Predictor, files: list[bytes]) -> None:
    """Whether the page's readings of files are Python's, heat maps included.

    Most are the same to five digits. But R-Net's and O-Net's scores lie close to 1, and where the last bit of two
    differs from one processor to another, the other of two boxes that are all but the same one is kept.
    """
    for ours, file in zip(read, files, strict=True):
        theirs = predictor(file).to_json()
        assert "faces" in ours, ours
        assert (ours["width"], ours["height"]) == (theirs["width"], theirs["height"])
        assert len(ours["faces"]) == len(theirs["faces"])
        for face, expected in zip(ours["faces"], theirs["faces"], strict=True):
            for same in ("label", "conditions", "status", "track"):
                assert face[same] == expected[same]
            np.testing.assert_allclose(face["box"], expected["box"], atol=1)
            assert list(face["probabilities"]) == list(expected["probabilities"])
            found, wanted = (np.array(list(each["probabilities"].values())) for each in (face, expected))
            np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
            for part, tolerance in (("corners", 1), ("heat", HEAT_TOLERANCE)):
                told, explained = face["explanation"][part], expected["explanation"][part]
                np.testing.assert_allclose(told, explained, atol=tolerance)
            assert face["uncertain"] == expected["uncertain"] or abs(wanted.max() - predictor.uncertain) < TOLERANCE


@needs_runtime
@needs_browser
def test_ten_pictures_are_read_as_in_python(static: Path, visit: Callable[..., "Page"]) -> None:
    page = visit(static)
    assert not page.evaluate("crossOriginIsolated"), "the server's headers were to be plain ones"
    files = pictures()
    assert len(files) == 10
    read = read_in(page, files)
    check_same(read, Predictor("fast", explain=True), files)
    assert len({face["label"] for reading in read for face in reading["faces"]}) >= 4
    assert [len(reading["faces"]) for reading in read[:3]] == [1, 2, 0]


@needs_runtime
@needs_browser
@pytest.mark.parametrize(("model", "faces"), [("accurate", "aligned"), ("ferplus", "images")])
def test_any_model_folder_is_read_as_in_python(
    model: str, faces: str, tmp_path: Path, visit: Callable[..., "Page"]
) -> None:
    """Of int8, of other labels, and one that takes faces as they are."""
    shutil.copytree(MODELS / model, tmp_path / "model")
    path, index = tmp_path / "model/preprocessing.json", tmp_path / "model/model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "faces": faces}))
    told = json.loads(index.read_text())
    told["sha256"]["preprocessing.json"] = sha256(path)
    index.write_text(json.dumps(told))
    predictor = Predictor(tmp_path / "model", explain=True)
    write_static_page(predictor, tmp_path / "page")
    files = pictures()[3:6]
    check_same(read_in(visit(tmp_path / "page"), files), predictor, files)


@needs_runtime
@needs_browser
def test_why_a_label_is_drawn_as_in_python_when_it_is_switched_on(static: Path, visit: Callable[..., "Page"]) -> None:
    page = visit(static)
    file = portrait_file()
    page.set_input_files("#file", {"name": "grace.jpg", "mimeType": "image/jpeg", "buffer": file})
    expect(page.locator(".who .name")).to_have_text("Face 1", timeout=PATIENCE)
    reading = Predictor("fast", explain=True)(file)
    assert heat_difference(page, reading)[0] > 10, "nothing was asked for"
    page.get_by_label("Why this label").check()
    mean, most = heat_difference(page, reading)
    assert mean < 2
    assert most < 30
    page.get_by_label("Why this label").uncheck()
    assert heat_difference(page, reading)[0] > 10
    # Frames of a moving picture, as the page sends them: the first is read as the picture was, the next are smoothed.
    frames = page.evaluate(MOVING, base64.b64encode(file).decode())
    (face,) = reading.to_json()["faces"]
    for message in frames:
        (found,) = message["reading"]["faces"]
        assert (found["track"], found["label"]) == (1, face["label"])
        np.testing.assert_allclose(found["explanation"]["heat"], face["explanation"]["heat"], atol=HEAT_TOLERANCE)


@needs_runtime
@needs_browser
def test_a_model_without_class_maps_has_no_switch_for_them(tmp_path: Path, visit: Callable[..., "Page"]) -> None:
    make_trained_net(noise(40), tmp_path).export(tmp_path / "model")
    write_static_page(Predictor(tmp_path / "model"), tmp_path / "page")
    page = visit(tmp_path / "page")
    page.set_input_files("#file", {"name": "grace.jpg", "mimeType": "image/jpeg", "buffer": portrait_file()})
    expect(page.locator(".who .name")).to_have_text("Face 1", timeout=PATIENCE)
    expect(page.get_by_label("Why this label: not with this model")).to_be_disabled()


@needs_runtime
@needs_browser
def test_the_camera_is_read_in_the_browser(static: Path, visit: Callable[..., "Page"]) -> None:
    page = visit(static)
    expect(page.locator("#connection")).to_have_text("Ready")
    page.get_by_role("button", name="Start the camera").click()
    # The face moves about, and the page knows it by its place alone: on a slow machine it gets another number.
    expect(page.locator(".who .name")).to_have_text(re.compile(r"Person \d+"), timeout=PATIENCE)
    expect(page.locator("#rate")).to_have_text(re.compile(r"[1-9]\d* readings/s, \d+ ms"), timeout=PATIENCE)
    expect(page.locator("#overlay")).to_have_attribute("aria-label", re.compile(r"Person \d+: .*\d%"))
    page.get_by_role("button", name="Stop").click()
    assert page.evaluate("document.querySelector('video').srcObject") is None, "the camera is let go of"
    page.get_by_role("link", name="Model card").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("fast, version")


@needs_runtime
@needs_browser
def test_a_browser_without_webassembly_is_told(static: Path, visit: Callable[..., "Page"]) -> None:
    page = visit(static, "delete globalThis.WebAssembly")
    expect(page.get_by_role("alert").get_by_role("heading")).to_have_text("This browser cannot run the nets")
    expect(page.get_by_role("alert")).to_contain_text("no WebAssembly")


@needs_runtime
@needs_browser
@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_file_is_told(damage: str, static: Path, tmp_path: Path, visit: Callable[..., "Page"]) -> None:
    shutil.copytree(static, tmp_path / "page")
    net = tmp_path / "page/models/model.onnx"
    data = net.read_bytes()
    net.unlink()
    if damage == "altered":
        net.write_bytes(data[:-1] + b"x")
    page = visit(tmp_path / "page")
    expect(page.get_by_role("alert").get_by_role("heading")).to_have_text("A file of this page cannot be loaded")
    expect(page.get_by_role("alert")).to_contain_text("models/model.onnx")


@needs_runtime
def test_the_folder_is_replaced_and_nothing_else(static: Path, tmp_path: Path) -> None:
    predictor = Predictor("ferplus")
    shutil.copytree(static, tmp_path / "page")
    size = write_static_page(predictor, tmp_path / "page")
    files = [path for path in (tmp_path / "page").rglob("*") if path.is_file()]
    assert size == sum(path.stat().st_size for path in files)
    settings = json.loads((tmp_path / "page/reader.json").read_text())
    assert settings["model"]["labels"] == list(predictor.labels)
    assert "{{" not in (tmp_path / "page/index.html").read_text() + (tmp_path / "page/card.html").read_text()
    for net in settings["files"].values():
        assert (tmp_path / "page" / net["path"]).is_file()
    (tmp_path / "page/holiday.jpg").touch()
    with pytest.raises(InputError, match=r"holiday\.jpg"):
        write_static_page(predictor, tmp_path / "page")


def test_a_missing_runtime_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(RuntimeMissingError, match=rf"npm ci --ignore-scripts --prefix {tmp_path}"):
        write_static_page(Predictor("fast"), tmp_path / "page", runtime=tmp_path)
    package = tmp_path / "node_modules" / PACKAGE
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"version": "1.2.3"}')
    with pytest.raises(RuntimeMissingError, match=r"version 1\.2\.3 where [\d.]+ was expected"):
        write_static_page(Predictor("fast"), tmp_path / "page", runtime=tmp_path)
    assert not (tmp_path / "page").exists()


def test_the_runtime_is_pinned() -> None:
    """One version, and of every package the hash of what npm ci may fetch."""
    package, lock = (json.loads((RUNTIME / name).read_text()) for name in ("package.json", "package-lock.json"))
    version = package["dependencies"][PACKAGE]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert lock["packages"][f"node_modules/{PACKAGE}"]["version"] == version
    for name, entry in lock["packages"].items():
        assert not name or entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, "no registry's address belongs here"


def test_a_damaged_model_folder_is_named(tmp_path: Path) -> None:
    import argparse

    shutil.copytree(MODELS / "fast", tmp_path / "model")
    (tmp_path / "model/model.onnx").write_bytes(b"torn")
    parser = argparse.ArgumentParser()
    web.add_arguments(parser)
    with pytest.raises(ModelError, match=r"model\.onnx: its sha256 is not the one"):
        web.run(parser.parse_args([str(tmp_path / "model"), str(tmp_path / "page")]))
    assert not (tmp_path / "page").exists()
