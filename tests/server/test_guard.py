"""Who may ask: host names, origins and tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from pipeline.server.guard import LOOPBACK, Access, host_name
from pipeline.server.problems import Problem

HOSTS = {
    "localhost": True,
    "LOCALHOST:8000": True,
    "127.0.0.1:8000": True,
    "[::1]:8000": True,
    "[0:0:0:0:0:0:0:1]": True,
    "localhost.": True,
    "localhost.evil.example": False,
    "127.0.0.1.evil.example:8000": False,
    "evil.example": False,
    "localhost@evil.example": False,
    "localhost evil.example": False,
    "": False,
}


@pytest.mark.parametrize("host", HOSTS)
def test_only_this_machines_names_are_answered_to(host: str) -> None:
    if HOSTS[host]:
        Access().check_host(host)
    else:
        with pytest.raises(Problem, match="another server"):
            Access().check_host(host)


@given(st.text())
def test_no_text_passes_for_a_name_that_it_is_not(host: str) -> None:
    assert host_name(host) not in LOOPBACK or host.lower().startswith(("localhost", "127.", "[", "::"))


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:8000", True),
        ("http://127.0.0.1:9000", False),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_pages_of_other_origins_are_refused(origin: str | None, allowed: bool) -> None:
    headers = Headers({"host": "127.0.0.1:8000", **({} if origin is None else {"origin": origin})})
    if allowed:
        Access().check_origin(headers)
    else:
        with pytest.raises(Problem) as refused:
            Access().check_origin(headers)
        assert refused.value.code == "other_origin"


def test_an_origin_is_this_servers_in_any_case() -> None:
    Access().check_origin(Headers({"host": "Localhost:8000", "origin": "http://LOCALHOST:8000"}))


def asking(authorization: str | None) -> HTTPConnection:
    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    return HTTPConnection({"type": "http", "headers": headers})


@pytest.mark.parametrize("sent", ["Bearer secret", "bearer secret", "BEARER  secret "])
def test_a_token_is_taken_with_its_scheme_in_any_case(sent: str) -> None:
    Access("secret").check_token(asking(sent))


@pytest.mark.parametrize("sent", [None, "", "secret", "Basic secret", "Bearer", "Bearer other", "Bearersecret"])
def test_without_the_token_a_server_that_has_one_refuses(sent: str | None) -> None:
    with pytest.raises(Problem) as refused:
        Access("secret").check_token(asking(sent))
    assert refused.value.code == "no_token"
    Access().check_token(asking(sent))


def test_a_server_without_names_answers_to_any() -> None:
    Access("secret", None).check_host("evil.example")


@given(st.text())
def test_one_token_is_let_in(token: str) -> None:
    assert Access("a-token-of-the-test").allows(token) == (token == "a-token-of-the-test")
    assert Access(None).allows(token)
