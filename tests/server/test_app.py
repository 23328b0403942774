"""REST over a real connection: what is read, how it is answered, what is told of the server."""

import base64
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
from helpers.running_server import LABELS, MANY, Painted, Running, picture
from PIL import Image

from pipeline.media import fetch
from pipeline.server.guard import Access
from pipeline.server.limits import Limits
from pipeline.server.problems import KINDS

Start = Callable[..., Running]
TOKEN = "correct-horse-battery"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer as a problem, which must be whole."""
    told = answer.json()
    assert (answer.status_code, told["code"]) == (status, code), told
    assert answer.headers["content-type"] == "application/problem+json"
    assert told["status"] == KINDS[code].status == status
    assert told["type"] == f"/docs#{code}"
    assert min(len(told[name]) for name in ("title", "detail", "action")) > 8
    return told


@pytest.mark.parametrize("way", ["form", "raw", "octets", "base64", "data URL"])
def test_the_portrait_is_read_however_it_is_sent(real: Running, portrait: bytes, way: str) -> None:
    text = base64.b64encode(portrait).decode()
    ways: dict[str, dict[str, Any]] = {
        "form": {"files": {"image": ("grace.jpg", portrait)}},
        "raw": {"content": portrait, "headers": {"Content-Type": "image/jpeg"}},
        "octets": {"content": portrait, "headers": {"Content-Type": "application/octet-stream"}},
        "base64": {"json": {"image": text, "name": "grace.jpg"}},
        "data URL": {"json": f"data:image/jpeg;base64,{text}"},
    }
    answer = real.post("/v1/read", **ways[way])
    reading = answer.json()
    assert answer.status_code == 200, reading
    assert (reading["width"], reading["height"]) == (512, 600)
    assert reading["file"] == ("grace.jpg" if way in ("form", "base64") else "image")
    assert reading["model"] == {"name": "TestNet", "version": "7"}
    (face,) = reading["faces"]
    assert face["box"] == pytest.approx([178, 110, 351, 330], abs=30)
    assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert face["label"] == max(face["probabilities"], key=face["probabilities"].get)


def test_a_batch_keeps_its_order_and_goes_on_after_a_bad_image(real: Running, portrait: bytes) -> None:
    files = [("images", ("one.jpg", portrait)), ("images", ("two.png", b"no image")), ("images", ("3.png", picture()))]
    answer = real.post("/v1/batch", files=files).json()
    first, second, third = answer["readings"]
    assert (first["file"], len(first["faces"])) == ("one.jpg", 1)
    assert (second["file"], second["problem"]["code"]) == ("two.png", "unreadable_image")
    assert "two.png" in second["problem"]["detail"]
    assert (third["file"], third["faces"]) == ("3.png", [])
    assert answer["failed"] == 1


def test_the_answer_can_be_the_picture_with_the_reading_drawn(real: Running, portrait: bytes) -> None:
    answer = real.post("/v1/read", files={"image": portrait}, headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
    plain = np.asarray(Image.open(io.BytesIO(portrait)).convert("RGB")).astype(int)
    assert drawn.shape[0] >= 600
    changed = np.abs(drawn[:600, :512] - plain).max(axis=2) > 60
    assert 0.005 < changed.mean() < 0.7, "a box and a label are drawn, and the picture is still there"


def test_answers_are_what_openapi_says(real: Running, portrait: bytes) -> None:
    specification = real.get("/openapi.json").json()
    schemas = specification["components"]["schemas"]

    def check(value: object, name: str) -> None:
        whole = json.loads(json.dumps(schemas[name]).replace("#/components/schemas/", "#/$defs/"))
        defs = json.loads(json.dumps(schemas).replace("#/components/schemas/", "#/$defs/"))
        for entry in (whole, *defs.values()):
            entry["additionalProperties"] = False
        jsonschema.validate(value, {**whole, "$defs": defs})

    check(real.post("/v1/read", files={"image": portrait}).json(), "OneAnswer")
    check(real.get("/health").json(), "HealthAnswer")
    check(real.get("/v1/model").json(), "ModelAnswer")
    check(real.post("/v1/read", content=b"x").json(), "ProblemAnswer")
    batch = real.post("/v1/batch", files=[("a", portrait), ("b", b"x")]).json()
    assert batch["failed"] == 1
    assert {"image/*", "application/json", "multipart/form-data"} <= set(
        specification["paths"]["/v1/read"]["post"]["requestBody"]["content"]
    )
    assert set(specification["x-problems"]) == set(KINDS)


def test_health_and_model_tell_what_is_served(real: Running) -> None:
    assert real.get("/health").json() == {
        "live": True,
        "ready": True,
        "processes": 1,
        "model": {"name": "TestNet", "version": "7", "sha256": "0" * 64},
    }
    told = real.get("/v1/model").json()
    assert [entry["label"] for entry in told["expressions"]] == list(LABELS)
    assert len({entry["colour"] for entry in told["expressions"]}) == len(LABELS)
    for entry in told["expressions"]:
        assert real.get(entry["emoji"]).headers["content-type"] == "image/svg+xml"
    assert (told["token"], told["urls"]) == (False, False)


@pytest.mark.parametrize("path", ["/", "/docs", "/model-card", "/model-card.md", "/app.js", "/style.css"])
def test_pages_come_with_what_keeps_others_scripts_out(real: Running, path: str) -> None:
    answer = real.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "http://" not in answer.text.replace("http://localhost", "")
    again = real.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("path", ["/../app.py", "/..%2fapp.py", "/page/index.html", "/emoji/../app.py", "/%00"])
def test_no_other_path_is_served(real: Running, path: str) -> None:
    with httpx.Client(trust_env=False) as client:
        request = client.build_request("GET", real.url)
        request.url = httpx.URL(real.url).copy_with(raw_path=path.encode())
        problem(client.send(request), 404, "not_found")


@pytest.mark.parametrize("path", ["/", "/health", "/v1/model", "/metrics", "/openapi.json"])
def test_what_can_be_got_can_be_asked_for_its_head(start: Start, painted: Painted, path: str) -> None:
    running = start(painted)
    with running.client() as client:
        head = client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"] == client.get(path).headers["content-type"]
        assert set(client.put(path).headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_wrong_methods_types_and_bodies_are_told_apart(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(body_bytes=20_000, pixels=10_000, images=2))
    assert problem(running.get("/v1/read"), 405, "wrong_method")
    problem(running.post("/v1/read", content=b"x"), 415, "wrong_type")
    problem(running.post("/v1/read", content=b"x", headers={"Content-Type": "text/html"}), 415, "wrong_type")
    packed = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    problem(running.post("/v1/read", content=picture(), headers=packed), 415, "wrong_type")
    problem(running.post("/v1/read", content=b"{", headers={"Content-Type": "application/json"}), 400, "not_understood")
    problem(running.post("/v1/read", files={"image": b"x" * 20_001}), 413, "too_large")
    wide = problem(running.post("/v1/read", files={"image": ("w.png", picture(101, 100))}), 422, "too_many_pixels")
    assert "w.png: 101x100 pixels where at most 10000" in wide["detail"]
    problem(running.post("/v1/read", files={"image": b""}), 422, "unreadable_image")
    problem(running.post("/v1/read", files={"image": picture()[:60]}), 422, "unreadable_image")
    two = [("image", picture()), ("image", picture())]
    problem(running.post("/v1/read", files=two), 422, "wrong_number")
    problem(running.post("/v1/batch", files=[*two, *two]), 422, "wrong_number")
    assert painted.frames == []
    assert running.post("/v1/read", files={"image": picture()}).status_code == 200


def test_a_path_in_a_file_name_leads_nowhere(start: Start, painted: Painted) -> None:
    running = start(painted)
    for name in ("../../etc/passwd", "C:\\x\\passwd", "/etc/passwd"):
        assert running.post("/v1/read", files={"image": (name, picture())}).json()["file"] == "passwd"


def test_a_heat_map_is_given_to_those_who_ask(real: Running, portrait: bytes) -> None:
    def faces(path: str) -> list[dict[str, Any]]:
        answer = real.post(path, files={"image": portrait}).json()
        return list((answer["readings"][0] if "readings" in answer else answer)["faces"])

    (plain,) = faces("/v1/read")
    assert "explanation" not in plain
    assert faces("/v1/read?explain=false") == [plain]
    for path in ("/v1/read", "/v1/batch"):
        (face,) = faces(f"{path}?explain=true")
        told = face.pop("explanation")
        assert face == plain
        assert max(max(row) for row in told["heat"]) == 1
        assert len(told["corners"]) == 4
    assert real.get("/v1/model").json()["explain"] is True
    problem(real.post("/v1/read?explain=perhaps", files={"image": portrait}), 400, "not_understood")


def test_heat_maps_count_as_images_and_are_refused_where_they_are_off(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(rate=0.01, burst=5), explaining=painted)
    assert running.post("/v1/batch?explain=true", files=[("images", picture())] * 2).status_code == 200
    problem(running.post("/v1/read?explain=true", files={"image": picture()}), 429, "too_often")
    without = start(painted)
    problem(without.post("/v1/read?explain=true", files={"image": picture()}), 403, "explain_off")
    assert without.get("/v1/model").json()["explain"] is False


def test_no_address_is_fetched_unless_the_server_was_told_to(start: Start, painted: Painted) -> None:
    running = start(painted)
    told = problem(running.post("/v1/read", json={"url": "http://example.org/a.jpg"}), 403, "urls_off")
    assert "--allow-urls" in told["action"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://[::1]/",
        "http://169.254.169.254/latest/",
        "http://10.1.2.3/",
        "http://0x7f000001/",
        "http://2130706433/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://\ud800/",
        "x",
    ],
)
def test_private_addresses_and_other_schemes_are_not_fetched(start: Start, painted: Painted, url: str) -> None:
    running = start(painted, urls=True)
    problem(
        running.post(
            "/v1/read", content=json.dumps({"url": url}).encode(), headers={"Content-Type": "application/json"}
        ),
        422,
        "not_fetched",
    )
    assert painted.frames == []


def test_a_public_addresss_image_is_read(start: Start, painted: Painted, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def give(url: str, *, private: bool, max_bytes: int, timeout: float) -> bytes:
        asked.append((url, private, max_bytes))
        return picture(40, 30)

    monkeypatch.setattr("pipeline.server.service.fetch", give)
    running = start(painted, urls=True)
    reading = running.post("/v1/read", json={"url": "https://example.org/a.png"}).json()
    assert (reading["width"], reading["height"]) == (40, 30)
    assert asked == [("https://example.org/a.png", False, MANY.body_bytes)]
    assert fetch.fetch is not give


def test_a_token_is_needed_for_everything_but_the_page_and_health(start: Start, painted: Painted) -> None:
    running = start(painted, access=Access(TOKEN, None))
    for sent in (None, "Bearer wrong", TOKEN, f"Basic {TOKEN}", "Bearer"):
        headers = {"Authorization": sent} if sent else {}
        answer = running.post("/v1/read", files={"image": picture()}, headers=headers)
        problem(answer, 401, "no_token")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert running.post("/v1/batch", files={"image": picture()}, headers=headers).status_code == 401
        assert running.get("/metrics", headers=headers).status_code == 401
    assert painted.frames == []
    assert running.post("/v1/read", files={"image": picture()}, headers=bearer(TOKEN)).status_code == 200
    assert running.get("/metrics", headers=bearer(TOKEN)).status_code == 200
    for path in ("/", "/health", "/v1/model", "/openapi.json"):
        assert running.get(path).status_code == 200
    assert running.get("/v1/model").json()["token"] is True


def test_other_names_and_other_pages_are_refused(start: Start, painted: Painted) -> None:
    running = start(painted)
    problem(running.get("/health", headers={"Host": "evil.example"}), 421, "other_host")
    origin = {"Origin": "https://evil.example"}
    problem(running.post("/v1/read", files={"image": picture()}, headers=origin), 403, "other_origin")
    own = {"Origin": running.url}
    assert running.post("/v1/read", files={"image": picture()}, headers=own).status_code == 200
    assert "access-control-allow-origin" not in running.get("/health", headers=origin).headers


def test_guessing_and_asking_too_often_is_slowed_down(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(rate=0.5, burst=3), Access(TOKEN))
    for _ in range(3):
        assert running.get("/metrics", headers=bearer("guess")).status_code == 401
    answer = running.get("/metrics", headers=bearer(TOKEN))
    problem(answer, 429, "too_often")
    assert 1 <= int(answer.headers["retry-after"]) <= 2
    assert running.get("/health").status_code == 200


def test_a_batch_counts_as_its_images(start: Start, painted: Painted) -> None:
    running = start(painted, Limits(rate=0.01, burst=5))
    four = [("images", picture())] * 4
    assert running.post("/v1/batch", files=four).status_code == 200
    problem(running.post("/v1/batch", files=four), 429, "too_often")


def test_a_fault_of_ours_is_told_as_such_and_the_server_goes_on(
    start: Start, painted: Painted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = start(painted)
    with monkeypatch.context() as broken:
        broken.setattr(painted, "read", lambda frames: 1 / 0)
        told = problem(running.post("/v1/read", files={"image": ("secret.png", picture())}), 500, "our_fault")
    assert "Zero" not in json.dumps(told)
    assert running.post("/v1/read", files={"image": picture()}).status_code == 200
    assert any("ZeroDivisionError" in message and "test_app.py" in message for message in caplog.messages)
    assert "secret" not in caplog.text


def test_metrics_count_what_was_done_and_tell_nothing_of_whom(start: Start, painted: Painted) -> None:
    running = start(painted)
    for _ in range(2):
        running.post("/v1/read", files={"image": ("grace.png", picture())})
    running.post("/v1/read", files={"image": b"x"})
    running.get("/some/secret/path")
    running.get("/")
    assert running.figure('expressions_requests_total{method="POST",route="/v1/read",status="200"}') == 2
    assert running.figure('expressions_requests_total{method="POST",route="/v1/read",status="422"}') == 1
    assert running.figure('expressions_requests_total{method="GET",route="other",status="404"}') == 1
    assert running.figure('expressions_problems_total{code="unreadable_image"}') == 1
    assert running.figure('expressions_images_total{way="request"}') == 2
    assert running.figure('expressions_faces_total{way="request"}') == 2
    assert running.figure('expressions_request_seconds_count{route="/v1/read"}') == 3
    assert running.figure("expressions_queue") == 0
    text = running.get("/metrics").text
    assert not any(word in text for word in ("grace", "secret", "127.0.0.1", "happy"))


recorders: list[list[str]] = []


def record(event: str, arguments: tuple[Any, ...]) -> None:
    if recorders and event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        recorders[-1].append(str(arguments[0]))


def test_nothing_is_stored(
    start: Start,
    painted: Painted,
    portrait: bytes,
    tmp_path: Path,
) -> None:
    """Not even for a moment, also of uploads so large that a framework would put them into a temporary file."""
    sys.addaudithook(record)  # there is no way to remove it
    running = start(painted)
    noise = np.random.default_rng(0).integers(0, 255, (1000, 1200, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert len(file.getvalue()) > 3 << 20
    recorded: list[str] = []
    recorders.append(recorded)
    with (tmp_path / "x").open("wb"):
        assert recorded == [str(tmp_path / "x")], "writing is seen"
    recorded.clear()
    assert running.post("/v1/read", files={"image": ("large.png", file.getvalue())}).status_code == 200
    assert running.post("/v1/read", files={"image": portrait}, headers={"Accept": "image/png"}).status_code == 200
    body = {"images": [base64.b64encode(file.getvalue()).decode()] * 2}
    assert running.post("/v1/batch", json=body).status_code == 200
    recorders.clear()
    assert recorded == []
