"""Texts: every one of them in every language, with the same things to fill in."""

from string import Formatter

import pytest

from pipeline.bot.texts import LABELS, LANGUAGES, TEXTS, label_in, language_of, say
from pipeline.data.labels import LABELS as MODEL_LABELS
from pipeline.drawing.palette import COLOURS, SYNONYMS

TELEGRAMS_LONGEST = {"command": 256, "text": 4096}


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_is_there_in_every_language_with_the_same_placeholders(name: str) -> None:
    texts = TEXTS[name]
    assert list(texts) == list(LANGUAGES)
    placeholders = {
        language: sorted(field for _, field, _, _ in Formatter().parse(text) if field is not None)
        for language, text in texts.items()
    }
    assert len(set(map(tuple, placeholders.values()))) == 1, placeholders
    longest = TELEGRAMS_LONGEST["command" if name.startswith("command_") else "text"]
    assert all(0 < len(text) < longest - 100 and text == text.strip() for text in texts.values())
    values = dict.fromkeys(placeholders["en"], "42")
    for language, text in texts.items():
        said = say(language, name, **values)
        assert "{" not in said
        assert said.count("42") == len(placeholders[language])
        assert bool(placeholders[language]) == (said != text)


def test_texts_differ_between_languages_where_they_are_not_names() -> None:
    same = {name for name, texts in TEXTS.items() if len(set(texts.values())) < len(LANGUAGES)}
    assert same == {"command_language"}


@pytest.mark.parametrize("label", {*MODEL_LABELS, *COLOURS, *SYNONYMS})
def test_every_label_is_translated_and_english_says_it_as_it_is_drawn(label: str) -> None:
    assert label_in("en", label) == label
    for language in set(LANGUAGES) - {"en"}:
        assert label in LABELS[language]
        assert label_in(language, label) == LABELS[language][label]


def test_a_label_nobody_knows_is_said_as_it_is() -> None:
    assert label_in("de", "bored") == "bored"


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("DE", "de"),
        ("en-GB", "en"),
        ("fr", "en"),
        ("", "en"),
        (None, "en"),
        ("dex", "en"),
    ],
)
def test_the_language_is_that_of_the_tag(tag: str | None, language: str) -> None:
    assert language_of(tag) == language
