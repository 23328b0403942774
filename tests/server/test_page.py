"""The page in headless Chromium, with a camera that is a file: what a visitor sees and is told."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from helpers.chromium import (
    CHROMIUM,
    MISSING,
    heat_difference,
    launch,
    launch_with_camera,
    started_playwright,
    write_films,
)
from helpers.running_server import MANY, Painted, Running, picture

from pipeline.media.frames import Frame
from pipeline.predictor import Predictor
from pipeline.readings import Explanation
from pipeline.server.guard import Access
from pipeline.server.limits import Limits

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright, Route

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect

Start = Callable[..., Running]
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
DROP = """async ([name, type, bytes]) => {
  const files = new DataTransfer();
  files.items.add(new File([Uint8Array.from(bytes)], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.dispatchEvent(new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
}"""
DRAWN = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"


@pytest.fixture(scope="module")
def playwright() -> Iterator["Playwright"]:
    with started_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def frames(portrait: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of write_films()."""
    folder = tmp_path_factory.mktemp("frames")
    write_films(folder, portrait)
    return folder


@pytest.fixture(scope="module")
def browser(playwright: "Playwright", frames: Path) -> Iterator["Browser"]:
    """With a camera, which pages may use."""
    with launch_with_camera(playwright, frames / "camera.mjpeg") as browser:
        yield browser


@pytest.fixture
def another(playwright: "Playwright") -> Iterator[Callable[..., "Browser"]]:
    """Starts browsers with other switches."""
    with ExitStack() as stack:
        yield lambda *switches: stack.enter_context(launch(playwright, *switches))


@pytest.fixture
def visit() -> Iterator[Callable[..., "Page"]]:
    """Opens the page; at the end it must have failed nowhere, and have asked nobody but the server."""
    contexts, faults = [], []

    def open_page(browser: "Browser", running: Running, **options: Any) -> "Page":
        context = browser.new_context(**options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if "Policy" in message.text else None)
        own = (running.url, running.url.replace("http", "ws"), f"blob:{running.url}")
        page.on("request", lambda asked: None if asked.url.startswith(own) else faults.append(asked.url))
        page.goto(running.url)
        expect(page.locator(".bars").first).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def value(page: "Page", label: str) -> str:
    return page.locator(f".bars li[data-label={label}] .value").first.inner_text()


def fits(page: "Page") -> bool:
    """Whether there is nothing to scroll to sideways."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_camera_finds_the_face_and_bars_move(
    real: Running, browser: "Browser", visit: Callable[..., "Page"]
) -> None:
    page = visit(browser, real)
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator(".who .name")).to_have_text(re.compile(r"Person \d+"))
    expect(page.locator("#connection")).to_have_text("Connected")
    widths = set()
    for _ in range(100):
        widths.add(page.locator(".bars .fill").evaluate_all("bars => bars.map(bar => bar.style.width).join()"))
        if len(widths) > 3:
            break
        page.wait_for_timeout(50)
    assert len(widths) > 3, "the bars stand still"
    assert page.locator("#overlay").evaluate(DRAWN), "no box is drawn"
    assert page.locator("#timeline").evaluate(DRAWN)
    expect(page.locator("#overlay")).to_have_attribute("aria-label", re.compile(r"Person \d+: .*\d%"))
    expect(page.get_by_role("status")).to_have_text(re.compile(r"Person \d+: "))

    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_have_attribute("aria-pressed", "true")
    before = real.figure('expressions_images_total{way="live"}')
    page.wait_for_timeout(400)
    # Two were on their way, and the one that is shown now is read too.
    assert real.figure('expressions_images_total{way="live"}') <= before + 3
    page.get_by_role("button", name="Resume").click()
    page.get_by_label("Largest only").check()
    page.get_by_label("Mirror").uncheck()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Start the camera")).to_be_focused()
    for _ in range(100):
        if real.figure("expressions_sessions") == 0:
            break
        page.wait_for_timeout(50)
    assert real.figure("expressions_sessions") == 0
    assert page.evaluate("document.querySelector('video').srcObject") is None, "the camera is let go of"


def test_a_picture_that_is_dropped_is_read(
    real: Running, browser: "Browser", visit: Callable[..., "Page"], portrait: bytes
) -> None:
    page = visit(browser, real)
    page.evaluate(DROP, ["grace.jpg", "image/jpeg", list(portrait)])
    expect(page.locator(".who .name")).to_have_text("Face 1")
    values = [int(text.rstrip("%")) for text in page.locator(".bars .value").all_inner_texts()]
    assert 97 <= sum(values) <= 103
    expect(page.locator(".bars li.most .value")).to_have_text(f"{max(values)}%")
    assert page.locator("#picture").evaluate("image => image.naturalWidth") == 512


def test_a_video_is_read_as_it_plays(
    real: Running, browser: "Browser", visit: Callable[..., "Page"], frames: Path
) -> None:
    page = visit(browser, real)
    page.set_input_files("#file", frames / "clip.webm")
    expect(page.locator(".who .name")).to_have_text(re.compile(r"Person \d+"))
    expect(page.locator("#clock")).to_have_text("0:02 / 0:02")
    page.locator("#timeline").click(position={"x": 90, "y": 30})
    expect(page.locator("#clock")).to_have_text("0:00 / 0:02")
    page.get_by_label("Position in the video").fill("1")
    expect(page.locator("#clock")).to_have_text("0:01 / 0:02")


@pytest.mark.parametrize(
    ("name", "title"),
    [("NotAllowedError", "The camera was not allowed"), ("NotReadableError", "The camera is busy")],
)
def test_a_camera_that_is_refused_or_busy_is_told(
    real: Running, browser: "Browser", visit: Callable[..., "Page"], name: str, title: str
) -> None:
    page = visit(browser, real)
    page.evaluate(
        "name => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', name); }; }", name
    )
    page.get_by_role("button", name="Start the camera").click()
    expect(page.get_by_role("alert").get_by_role("heading")).to_have_text(title)
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    expect(page.get_by_role("button", name="Choose a picture or video")).to_be_visible()


def test_a_permission_that_the_browser_denies_is_told(
    real: Running, another: Callable[..., "Browser"], visit: Callable[..., "Page"]
) -> None:
    # Nobody is there to press the prompt's button, so that Chromium denies it.
    page = visit(another("--use-fake-device-for-media-stream"), real)
    page.get_by_role("button", name="Start the camera").click()
    expect(page.get_by_role("alert").get_by_role("heading")).to_have_text("The camera was not allowed")


def test_a_missing_camera_is_told(
    real: Running, another: Callable[..., "Browser"], visit: Callable[..., "Page"]
) -> None:
    page = visit(another(), real, permissions=["camera"])
    page.get_by_role("button", name="Start the camera").click()
    expect(page.get_by_role("alert").get_by_role("heading")).to_have_text("No camera was found")


def test_a_camera_that_is_lost_is_told(real: Running, browser: "Browser", visit: Callable[..., "Page"]) -> None:
    page = visit(browser, real)
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator(".who")).to_be_visible()
    page.evaluate("document.querySelector('video').srcObject.getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.get_by_role("alert").get_by_role("heading")).to_have_text("The camera was lost")


def test_no_face_and_no_picture_are_told_apart(real: Running, browser: "Browser", visit: Callable[..., "Page"]) -> None:
    page = visit(browser, real)
    page.evaluate(DROP, ["wall.png", "image/png", list(picture(300, 200))])
    expect(page.locator("#hint")).to_have_text("No face found in this picture.")
    page.evaluate(DROP, ["torn.png", "image/png", list(picture(300, 200)[:40])])
    expect(page.get_by_role("alert")).to_contain_text("no picture that the browser can show")
    page.evaluate(DROP, ["letter.pdf", "application/pdf", [37, 80, 68, 70]])
    expect(page.get_by_role("alert")).to_contain_text("Neither a picture nor a video")
    page.evaluate(DROP, ["torn.webm", "video/webm", [1, 2, 3]])
    expect(page.get_by_role("alert")).to_contain_text("cannot be played")


def test_a_picture_that_is_opened_before_the_page_is_ready_counts_as_not_read(
    real: Running, browser: "Browser", visit: Callable[..., "Page"]
) -> None:
    page = visit(browser, real)
    held: list[Route] = []

    def hold(route: "Route") -> None:
        held.append(route)

    for path in ("**/v1/model", "**/v1/read?*"):
        page.route(path, hold)
    page.reload()
    page.evaluate(DROP, ["wall.png", "image/png", list(picture(300, 200))])
    expect(page.locator(".empty")).to_have_text("Not read yet")
    while held:  # each that is answered may bring another
        held.pop().continue_()
        page.wait_for_timeout(100)
    expect(page.locator(".bars li")).to_have_count(7)
    expect(page.locator(".empty")).to_have_text("No face found")


def test_the_reading_of_the_picture_before_goes_with_it(
    real: Running, browser: "Browser", visit: Callable[..., "Page"], portrait: bytes
) -> None:
    page = visit(browser, real)
    page.evaluate(DROP, ["face", "", list(portrait)])
    expect(page.locator(".who")).to_be_visible()
    assert page.locator("#overlay").evaluate(DRAWN)
    page.evaluate(DROP, ["torn.png", "image/png", list(picture(300, 200)[:40])])
    expect(page.get_by_role("alert")).to_contain_text("no picture that the browser can show")
    expect(page.locator(".who")).to_have_count(0)
    assert not page.locator("#overlay").evaluate(DRAWN)


def test_an_uncertain_reading_looks_uncertain(
    start: Start, painted: Painted, browser: "Browser", visit: Callable[..., "Page"]
) -> None:
    painted.uncertain, painted.conditions = True, ("turned",)
    page = visit(browser, start(painted))
    page.evaluate(DROP, ["a.png", "image/png", list(picture(300, 200))])
    expect(page.locator(".who .label")).to_have_text(re.compile("uncertain perhaps happy, 75%"))
    expect(page.locator(".who img")).to_have_attribute("src", "/emoji/unknown.svg")
    expect(page.locator(".conditions")).to_have_text("Worth less: turned away.")


def test_why_a_label_is_drawn_as_in_python_when_it_is_switched_on(
    real: Running, browser: "Browser", visit: Callable[..., "Page"], portrait: bytes
) -> None:
    page = visit(browser, real)
    page.evaluate(DROP, ["grace.jpg", "image/jpeg", list(portrait)])
    expect(page.locator(".who .name")).to_have_text("Face 1")
    reading = Predictor(explain=True)(portrait)
    assert heat_difference(page, reading)[0] > 10, "nothing was asked for"
    with page.expect_response("**/v1/read?explain=true") as answer:
        page.get_by_label("Why this label").check()
    (face,) = reading.to_json()["faces"]
    assert answer.value.json()["faces"] == [face]
    expect(page.locator("#hint")).to_be_hidden()
    mean, most = heat_difference(page, reading)
    assert mean < 1.5
    assert most < 20
    page.get_by_label("Why this label").uncheck()
    assert heat_difference(page, reading)[0] > 10


def test_why_a_label_is_drawn_over_a_camera_that_is_paused(
    start: Start, painted: Painted, browser: "Browser", visit: Callable[..., "Page"]
) -> None:
    corners = ((50.0, 40.0), (590.0, 40.0), (590.0, 440.0), (50.0, 440.0))
    painted.explanation = Explanation({"happy": ((0.5, 0.0, 0.5), (0.5, 1.0, 0.0), (0.0, 0.5, 0.0))}, corners)
    page = visit(browser, start(painted, explaining=painted))
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator(".who .name")).to_have_text("Person 1", timeout=30_000)
    page.get_by_role("button", name="Pause").click()
    reading = painted.happy(Frame("live", np.zeros((480, 640, 3), np.uint8)), 1)
    assert heat_difference(page, reading, mirrored=True)[0] > 10
    asked = len(painted.frames)
    page.get_by_label("Why this label").check()
    for _ in range(200):
        mean, most = heat_difference(page, reading, mirrored=True)
        if mean < 1.5:
            break
        page.wait_for_timeout(50)
    assert mean < 1.5
    assert most < 20
    assert asked < len(painted.frames) <= asked + 3, "the frame that is shown is sent again, once"
    assert painted.opened == 1, "faces keep their numbers"


def test_a_model_without_heat_maps_has_no_switch_for_them(
    start: Start, painted: Painted, browser: "Browser", visit: Callable[..., "Page"]
) -> None:
    page = visit(browser, start(painted))
    page.evaluate(DROP, ["a.png", "image/png", list(picture(300, 200))])
    expect(page.locator(".who .label")).to_have_text(re.compile("happy"))
    expect(page.get_by_label("Why this label: not with this model")).to_be_disabled()


def test_a_server_that_stops_is_told_and_found_again(
    start: Start, painted: Painted, browser: "Browser", visit: Callable[..., "Page"]
) -> None:
    running = start(painted)
    page = visit(browser, running)
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator(".who")).to_be_visible()
    running.uvicorn.should_exit = True
    expect(page.get_by_role("alert")).to_contain_text(re.compile("was stopped|cannot be reached"))
    expect(page.get_by_role("alert")).to_contain_text("Trying again in")
    expect(page.locator("#connection")).to_have_text("Not connected")


def test_a_busy_server_is_told(
    start: Start, painted: Painted, browser: "Browser", visit: Callable[..., "Page"]
) -> None:
    page = visit(browser, start(painted, Limits(sessions=0)))
    page.get_by_role("button", name="Start the camera").click()
    expect(page.get_by_role("alert").get_by_role("heading")).to_have_text("The server is busy")


def test_the_token_is_asked_for_until_it_is_right(
    start: Start, painted: Painted, browser: "Browser", visit: Callable[..., "Page"]
) -> None:
    page = visit(browser, start(painted, MANY, Access("correct-horse-battery")))
    page.get_by_role("button", name="Start the camera").click()
    for token in ("wrong", "correct-horse-battery"):
        page.get_by_label("Token", exact=True).fill(token)
        page.get_by_role("button", name="Use it").click()
    expect(page.locator(".who")).to_be_visible()
    page.evaluate(DROP, ["a.png", "image/png", list(picture(300, 200))])
    expect(page.locator(".who .name")).to_have_text("Face 1")
    assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_a_phones_screen_is_wide_enough(
    real: Running, browser: "Browser", visit: Callable[..., "Page"], portrait: bytes, frames: Path
) -> None:
    page = visit(browser, real, **PHONE)
    assert fits(page)
    page.get_by_role("button", name="Start the camera").tap()
    expect(page.locator(".who")).to_be_visible()
    assert fits(page)
    for name in ("Pause", "Stop"):
        box = page.get_by_role("button", name=name).bounding_box()
        assert box is not None
        assert box["height"] >= 44
    page.set_input_files("#file", frames / "clip.webm")
    expect(page.locator(".who .name")).to_have_text(re.compile("Person"))
    assert fits(page)
    for path in ("/docs", "/model-card"):
        page.goto(f"{real.url}{path}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        assert fits(page)


def test_everything_is_reached_by_keyboard_and_has_a_name(
    real: Running, browser: "Browser", visit: Callable[..., "Page"]
) -> None:
    page = visit(browser, real)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the picture")).to_be_focused()
    for _ in range(3):
        page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Start the camera")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".who")).to_be_visible()
    nameless = page.locator("button, input, select, a, canvas, [role=img]").evaluate_all(
        "all => all.filter((each) => each.checkVisibility())"
        ".filter((each) => !(each.innerText || each.ariaLabel || each.labels?.length)).map((each) => each.outerHTML)"
    )
    assert nameless == []


def test_the_documents_tell_every_request_and_problem(
    real: Running, browser: "Browser", visit: Callable[..., "Page"]
) -> None:
    page = visit(browser, real)
    page.get_by_role("link", name="API").click()
    expect(page.locator(".operation")).to_have_count(5)
    expect(page.locator("#codes")).to_contain_text("unreadable_image")
    expect(page.locator("#FaceAnswer + .wide")).to_contain_text("probabilities")
    page.get_by_role("link", name="Model card").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("A card")
