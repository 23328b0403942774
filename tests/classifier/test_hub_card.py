"""The head of a card is what hubs read, and nothing that a person is shown."""

from typing import Any

import pytest
import yaml

from pipeline.classifier.hub_card import front_matter, without_front_matter

MEASURED = {"val": {"n": 70, "accuracy": 0.75, "macro_f1": 0.5}}


@pytest.mark.parametrize("metrics", [None, {}, MEASURED])
def test_hubs_read_licence_tags_and_figures(metrics: Any) -> None:
    _, head, rest = front_matter({"name": "mine: small", "license": "cc-by-4.0", "metrics": metrics}).split("---\n")
    found = yaml.safe_load(head)
    assert rest == "\n"
    assert found["license"] == "cc-by-4.0"
    assert "facial-expression-recognition" in found["tags"]
    if not metrics:
        assert not {"metrics", "model-index"} & set(found)
        return
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert model["name"] == "mine: small"
    assert [(metric["type"], metric["value"]) for metric in result["metrics"]] == [("accuracy", 0.75), ("f1", 0.5)]
    assert set(result) == {"task", "dataset", "metrics"}


@pytest.mark.parametrize("card", ["# mine\n\ntext\n\n---\n\nmore\n", "---\nno end", ""])
def test_a_person_reads_the_card_alone(card: str) -> None:
    assert without_front_matter(card) == card
    head = front_matter({"name": "mine", "license": "mit", "metrics": MEASURED})
    if not card.startswith("---"):
        assert without_front_matter(head + card) == card
