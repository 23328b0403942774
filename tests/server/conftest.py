"""Servers that really listen, on ports of this machine, and what is sent to them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from helpers.portraits import portrait_file
from helpers.running_server import Painted, Running, running, wait_for_the_end

from pipeline.predictor import Predictor


@pytest.fixture(scope="session", autouse=True)
def servers() -> Iterator[None]:
    yield
    wait_for_the_end()


@pytest.fixture
def painted() -> Painted:
    return Painted()


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Starts servers that end with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(running(*arguments, **options))


@pytest.fixture(scope="session")
def real(servers: None) -> Iterator[Running]:
    """A server with the model that ships."""
    predictor = Predictor()
    with running(predictor, explaining=predictor.explaining()) as server:
        yield server


@pytest.fixture(scope="session")
def portrait() -> bytes:
    """A JPEG of 512x600 pixels with one face."""
    return portrait_file()
