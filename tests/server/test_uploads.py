"""Bodies: every form gives back the bytes that were put into it, and whatever else comes is a problem with a code."""

import base64
import json
import string
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import quote

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.server.problems import Problem
from pipeline.server.uploads import FORM, JSON, Upload, media_type, parse_upload, plain_name


def form(files: list[tuple[str, bytes]], field: str = "image") -> tuple[str, bytes]:
    request = httpx.Request("POST", "http://host/", files=[(field, (name, data)) for name, data in files])
    return request.headers["content-type"], request.read()


def refused(kind: str, body: bytes, *, one: bool = True) -> Problem:
    with pytest.raises(Problem) as problem:
        parse_upload(kind, body, 3, one=one)
    return problem.value


@given(st.binary())
def test_raw_bodies_are_the_image(data: bytes) -> None:
    assert parse_upload("image/jpeg", data, 3, one=True) == [Upload("image", data)]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3))
def test_a_forms_files_come_out_as_they_went_in(files: list[bytes]) -> None:
    kind, body = form([(f"{number}.jpg", data) for number, data in enumerate(files)])
    uploads = parse_upload(kind, body, 3, one=False)
    assert [(upload.name, upload.data) for upload in uploads] == [
        (f"{number}.jpg", data) for number, data in enumerate(files)
    ]


@given(st.binary(min_size=1), st.sampled_from(["plain", "data", "percent", "wrapped"]))
def test_base64_and_data_urls_come_out_as_they_went_in(data: bytes, way: str) -> None:
    text = base64.b64encode(data).decode()
    image = {
        "plain": text,
        "data": f"data:image/png;name=a;base64,{text}",
        "percent": f"data:image/png,{quote(data)}",
        "wrapped": "\r\n".join(text[at : at + 60] for at in range(0, len(text), 60)),
    }[way]
    assert parse_upload(JSON, json.dumps(image).encode(), 3, one=True)[0].data == data
    batch = json.dumps({"images": [image, {"image": image, "name": "b"}]}).encode()
    assert parse_upload(JSON, batch, 3, one=False) == [Upload("image 1", data), Upload("b", data)]


def test_addresses_are_kept_for_whoever_may_fetch_them() -> None:
    (upload,) = parse_upload(JSON, b'{"url": "https://example.org/a.jpg", "name": "a.jpg"}', 3, one=True)
    assert upload == Upload("a.jpg", b"", "https://example.org/a.jpg")


@given(st.binary(max_size=200), st.sampled_from([FORM, f"{FORM}; boundary=b", JSON, "image/png"]), st.booleans())
@example(b"--b\r\n\r\n--b--\r\n", f"{FORM}; boundary=b", True)
@example(b"[" * 100_000, JSON, True)
@example(b'{"images": [' + b"1" * 5000 + b"]}", JSON, False)
def test_any_bytes_are_uploads_or_a_problem(body: bytes, kind: str, one: bool) -> None:
    try:
        good = 1 <= len(parse_upload(kind, body, 3, one=one)) <= 3
    except Problem as problem:
        good = problem.kind.status in (400, 422)
    assert good


@pytest.mark.parametrize(
    "body",
    [
        "7",
        "[]",
        '{"image": 7}',
        '{"image": "QUJD", "url": "http://a/"}',
        '{"image": "!!"}',
        '{"image": "data:,%"',
        '{"image": "QUJD", "size": 3}',
        "{}",
        '{"url": "http://' + "a" * 3000 + '"}',
    ],
)
def test_other_json_is_not_understood(body: str) -> None:
    assert refused(JSON, body.encode()).code == "not_understood"


def test_a_form_may_hold_no_fields_no_more_files_than_allowed_and_must_end() -> None:
    kind, body = form([("a.jpg", b"A" * 50)])
    assert refused(kind, body[:-10]).detail == "The form ends before its last boundary."
    assert refused(FORM, body).detail == "The form's content type names no boundary."
    assert refused(*form([("a", b"1")] * 2)).code == "wrong_number"
    assert refused(*form([("a", b"1")] * 4), one=False).code == "wrong_number"
    request = httpx.Request("POST", "http://host/", data={"min_face": "3"}, files={"image": b"1"})
    assert "'min_face'" in refused(request.headers["content-type"], request.read()).detail
    long = form([("a" * 5000, b"1")])
    assert refused(*long).code == "not_understood"


@given(st.text())
@example("../../etc/passwd")
@example("C:\\Windows\\system32\\cmd.exe")
@example("a\r\nSet-Cookie: b=c\x00")
def test_a_files_name_leads_nowhere(name: str) -> None:
    plain = plain_name(name)
    assert plain == PurePosixPath(plain).name or plain in (".", "..")
    assert plain == PureWindowsPath(plain).name or plain in (".", "..") or ":" in plain
    assert plain.isprintable()
    assert 1 <= len(plain) <= 255


@given(st.text(string.printable))
@example("IMAGE/JPEG ; q=1")
def test_a_media_type_is_two_plain_words_or_nothing(value: str) -> None:
    kind = media_type(value)
    assert kind == "" or (kind.count("/") == 1 and kind == kind.lower() and " " not in kind)
    assert media_type("IMAGE/JPEG ; q=1") == "image/jpeg"


def test_json_of_more_values_than_images_have_is_refused_before_it_is_parsed() -> None:
    for body in (b'{"images": [' + b"[]," * 20_000 + b"1]}", b'["' + b"\\\\" * 20_000 + b'"]', b"[" * 20_000):
        assert refused(JSON, body, one=False).detail == "The JSON has more values than images can have."
    names = [{"image": "QUJD", "name": f'"{number}", \\[{{:}}]' * 5} for number in range(3)]
    assert len(parse_upload(JSON, json.dumps({"images": names}).encode(), 3, one=False)) == 3


def test_base64_may_have_any_white_space() -> None:
    (upload,) = parse_upload(JSON, json.dumps({"image": "Q U\nJ\tD"}).encode(), 1, one=True)
    assert upload.data == b"ABC"
    assert refused(JSON, json.dumps({"image": "QUJDé"}).encode()).code == "not_understood"


def test_a_data_url_without_base64_is_short() -> None:
    (upload,) = parse_upload(JSON, b'"data:image/png,%41BC"', 1, one=True)
    assert upload.data == b"ABC"
    assert "send it in base64" in refused(JSON, b'"data:,' + b"%41" * 30_000 + b'"').detail
