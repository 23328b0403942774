"""What hubs of models read at the head of a card: YAML between two lines of dashes."""

from typing import Any

UNKNOWN = "unknown"  # the hubs' own word for a licence that nobody has said
TAGS = ["facial-expression-recognition", "emotion-recognition", "caffe", "onnx"]


def front_matter(index: dict[str, Any]) -> str:
    """Of a model, by what its model.json holds: licence, tags, and the figures of each part that was measured."""
    import yaml

    measured: dict[str, dict[str, Any]] = index["metrics"] or {}
    head: dict[str, Any] = {
        "license": index["license"],
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": TAGS,
    }
    if measured:
        head["metrics"] = ["accuracy", "f1"]
        head["model-index"] = [
            {"name": index["name"], "results": [_result(part, found) for part, found in measured.items()]}
        ]
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"


def without_front_matter(card: str) -> str:
    """What a person reads of a card."""
    _, separator, text = card.partition("\n---\n") if card.startswith("---\n") else ("", "", card)
    return text.lstrip("\n") if separator else card


def _result(part: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": {"type": "image-classification", "name": "facial expression recognition"},
        "dataset": {"type": part, "name": f"{found['n']} held-out images of {part}"},
        "metrics": [
            {"type": "accuracy", "value": found["accuracy"]},
            {"type": "f1", "name": "macro-F1", "value": found["macro_f1"]},
        ],
    }
