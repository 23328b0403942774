"""Which classes are used, under what names."""

import pytest

from pipeline.base.errors import SourceError
from pipeline.data.class_choice import ClassChoice, choose_classes

NAMES = ("angry", "happy", "sad", "neutral")


def test_keeps_all_or_takes_a_part_in_the_order_asked_for() -> None:
    assert choose_classes(NAMES) == ClassChoice(NAMES, (0, 1, 2, 3))
    assert choose_classes(NAMES, ["Happy", "neutral", "sad"]) == ClassChoice(
        ("happy", "neutral", "sad"), (None, 0, 2, 1)
    )


def test_renames_before_it_chooses() -> None:
    raf_db = choose_classes(("1", "2", "3"), class_names={"1": "Surprise", "3": "très triste"})
    assert raf_db == ClassChoice(("Surprise", "2", "très triste"), (0, 1, 2))
    chosen = choose_classes(("1", "2", "3"), ["fear", "surprise"], {"1": "surprise", "2": "fear"})
    assert chosen == ClassChoice(("fear", "surprise"), (1, 0, None))
    assert choose_classes(("a", "b"), class_names={"a": "b", "b": "a"}).labels == ("b", "a")


@pytest.mark.parametrize(
    ("classes", "class_names", "message"),
    [
        (["happy", "bored"], {}, "classes: bored: no such class; there are angry, happy, sad, neutral"),
        (["happy", "sad"], {"happy": "glad"}, "classes: happy: no such class; there are angry, glad, sad, neutral"),
        (["happy", "Happy"], {}, r"1 class \(happy\) where two or more"),
        (None, {"bored": "x"}, "class_names: bored: no such class"),
        (None, {"sad": "Happy"}, "happy and sad would both be called Happy"),
        (None, {"sad": "a/b"}, "class 'a/b': a class name of"),
        (None, {"sad": ".."}, r"class '\.\.': a class name of"),
        (None, {"sad": "two\nlines"}, r"class 'two\\nlines': a class name of"),
        (None, {"sad": ""}, "class '': a class name of"),
        (None, {"sad": "s" * 61}, "class 's+': a class name of"),
    ],
)
def test_refuses_classes_that_cannot_be(classes: list[str] | None, class_names: dict[str, str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        choose_classes(NAMES, classes, class_names)
