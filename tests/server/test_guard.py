"""Who may ask: host names, origins and tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

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


@given(st.text())
def test_one_token_is_let_in(token: str) -> None:
    assert Access("a-token-of-the-test").allows(token) == (token == "a-token-of-the-test")
    assert Access(None).allows(token)
