"""Work on other threads: items come in their order, one at a time, and whoever waits is not deaf meanwhile."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.base.threads import poll_while_waiting


def test_attended_items_come_in_order_each_when_it_is_asked_for() -> None:
    taken = []

    def items() -> Iterator[int]:
        for index in range(5):
            taken.append(index)
            yield index

    for item in poll_while_waiting(items(), 1, lambda: False):
        assert taken == list(range(item + 1))
    assert taken == list(range(5))


def test_what_waits_is_called_until_the_item_comes() -> None:
    calls = []
    ready = threading.Event()

    def items() -> Iterator[str]:
        yield "at once"
        ready.wait(10)
        yield "late"

    def meanwhile() -> bool:
        calls.append("call")
        if len(calls) == 3:
            ready.set()
        return False

    assert list(poll_while_waiting(items(), 0.01, meanwhile)) == ["at once", "late"]
    assert len(calls) >= 3


def test_waiting_ends_when_it_is_said() -> None:
    never = threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        never.wait(60)
        yield "never"

    assert list(poll_while_waiting(items(), 0.01, lambda: True)) == ["first"]
    never.set()


def test_an_error_comes_out_at_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("lost")

    found = []
    with pytest.raises(KeyError, match="lost"):  # noqa: PT012
        for item in poll_while_waiting(items(), 1, lambda: False):
            found.append(item)
    assert found == [1]
