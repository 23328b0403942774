"""metrics.json, which evaluate writes and export, ensemble and the workflow's closing words read."""

from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.text_files import read_json
from pipeline.classifier.calibration import TEMPERATURES

REMEDY = "evaluate the net again"
# Of a part, which is null where it has no images.
PART = {
    "type": ["object", "null"],
    "required": ["n", "accuracy", "accuracy_95", "macro_f1", "ece", "per_class"],
    "properties": {
        "n": {"type": "integer", "minimum": 1},
        "accuracy": {"$ref": "#/$defs/share"},
        "accuracy_95": {"type": "array", "items": {"$ref": "#/$defs/share"}, "minItems": 2, "maxItems": 2},
        "macro_f1": {"$ref": "#/$defs/share"},
        "ece": {"$ref": "#/$defs/share"},
        "per_class": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["label", "precision", "recall", "f1", "support"],
                "properties": {
                    "label": {"type": "string"},
                    **{name: {"anyOf": [{"$ref": "#/$defs/share"}, {"type": "null"}]}
                       for name in ("precision", "recall", "f1")},
                    "support": {"type": "integer", "minimum": 0},
                },
            },
        },
        "served": {
            "type": "object",
            "required": ["accuracy", "macro_f1", "macro_recall", "ece", "sure"],
            "properties": {
                **{name: {"$ref": "#/$defs/share"} for name in ("accuracy", "macro_f1", "macro_recall", "ece")},
                "sure": {
                    "type": "object",
                    "required": ["accuracy", "share", "threshold"],
                    "properties": {
                        "accuracy": {"anyOf": [{"$ref": "#/$defs/share"}, {"type": "null"}]},
                        "share": {"$ref": "#/$defs/share"},
                        "threshold": {"$ref": "#/$defs/share"},
                    },
                },
            },
        },
        "priors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["power", "accuracy", "macro_f1", "macro_recall", "ece", "ece_at_prior"],
                "additionalProperties": {"$ref": "#/$defs/share"},
            },
        },
        "views": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["views", "accuracy", "served", "macro_f1", "ms_per_image"],
                "properties": {
                    "views": {"type": "integer", "minimum": 1},
                    **{name: {"$ref": "#/$defs/share"} for name in ("accuracy", "macro_f1")},
                    "ms_per_image": {"type": "number", "minimum": 0},
                    "served": {
                        "type": ["object", "null"],  # without a temperature
                        "required": ["accuracy", "ece"],
                        "properties": {name: {"$ref": "#/$defs/share"} for name in ("accuracy", "ece")},
                    },
                },
            },
        },
    },
    "dependentSchemas": {
        "served": {
            "required": ["priors", "views"],
            "properties": {"views": {"items": {"properties": {"served": {"type": "object"}}}}},
        },
    },
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "required": ["val", "test", "training_shares", "temperature", "view_temperatures", "class_prior"],
    "properties": {
        "val": PART,
        "test": PART,
        "training_shares": {"type": ["object", "null"], "additionalProperties": {"$ref": "#/$defs/share"}},
        "temperature": {"anyOf": [{"$ref": "#/$defs/temperature"}, {"type": "null"}]},
        "view_temperatures": {"type": ["object", "null"], "additionalProperties": {"$ref": "#/$defs/temperature"}},
        "class_prior": {"anyOf": [{"$ref": "#/$defs/share"}, {"type": "null"}]},
    },
    # What images are served with is chosen on val, all of it or nothing.
    "if": {"properties": {"temperature": {"type": "null"}}},
    "then": {"properties": {"class_prior": {"type": "null"}}},
    "else": {"properties": {"class_prior": {"type": "number"}}},
    "$defs": {
        "share": {"type": "number", "minimum": 0, "maximum": 1},
        "temperature": {"type": "number", "minimum": TEMPERATURES[0], "maximum": TEMPERATURES[1]},
    },
}


class MetricsError(InputError):
    """A metrics.json that is damaged, or an older pipeline's."""


def read_metrics(path: Path) -> dict[str, Any]:
    """Read metrics.json. Raises MetricsError naming what is missing or wrong, OSError when it cannot be read."""
    from jsonschema import Draft202012Validator

    metrics = read_json(path, REMEDY, MetricsError)
    missing = [name for name in SCHEMA["required"] if name not in metrics]
    if missing:
        raise MetricsError(f"{path}: no {missing[0]}, which evaluate writes; {REMEDY}")
    error = next(Draft202012Validator(SCHEMA).iter_errors(metrics), None)
    if error is not None:
        where = "".join(f"{place}: " for place in error.absolute_path)
        raise MetricsError(f"{path}: {where}{error.message[:200]!r} where evaluate's figures were expected; {REMEDY}")
    return metrics


def describe_seeds(joined: dict[str, Any]) -> list[str]:
    """Of what seeds.json holds, a line for each held-out part: the mean and the spread of accuracy and macro-F1."""
    return [
        f"{part} accuracy {found['accuracy']['mean']:.1%} (sd {found['accuracy']['sd']:.1%}), macro-F1 "
        f"{found['macro_f1']['mean']:.3f} (sd {found['macro_f1']['sd']:.3f}) over {len(joined['runs'])} seeds, on "
        f"{found['n']:,} images each"
        for part in ("val", "test")
        if (found := joined[part])
    ]
