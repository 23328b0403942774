"""Options that several stages have."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.onnx_runtime import CPU, PROVIDERS
from pipeline.caffe.real_caffe import ENGINES
from pipeline.classifier.calibration import UNCERTAIN
from pipeline.classifier.class_prior import ClassPrior, ClassPriorError, parse_prior
from pipeline.classifier.model_folder import DEFAULTS, MAX_NAME, SHIPPED, TRAIN_ON, is_name
from pipeline.classifier.views import COUNTS
from pipeline.faces.detector import DETECTORS

if TYPE_CHECKING:
    from pipeline.predictor import Predictor

# Of config.yaml, those that mean these.
PREDICTOR_SETTINGS = (
    "model",
    "detector",
    "detector_model",
    "min_face",
    "uncertain",
    "class_prior",
    "views",
    "providers",
)


def add_predictor_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of a Predictor; build_predictor() takes them."""
    from pipeline.predictor import MIN_FACE, MIN_MOVING_FACE

    parser.add_argument(
        "--model",
        metavar="NAME",
        help=f"a model: {', '.join(SHIPPED)}, the name of a run, or a model folder (default "
        f"{DEFAULTS['images']} for images, {DEFAULTS['moving']} for videos and cameras)",
    )
    add_detector_arguments(parser)
    parser.add_argument(
        "--min-face",
        type=positive,
        metavar="PIXELS",
        help=f"side of the smallest face looked for (default {MIN_FACE} in images, {MIN_MOVING_FACE} "
        "where faces are followed)",
    )
    parser.add_argument(
        "--uncertain",
        type=probability,
        default=UNCERTAIN,
        metavar="PROBABILITY",
        help=f"flag a face as uncertain when its top probability is below this (default {UNCERTAIN})",
    )
    parser.add_argument(
        "--class-prior",
        type=prior,
        metavar="PRIOR",
        help="how common each label is where the faces come from: training (as in the model's "
        "training), uniform, a number between them (0 to 1), or shares, as neutral=0.7,happy=0.2, the "
        "other labels sharing the rest (default: the model's)",
    )
    parser.add_argument(
        "--explain",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="say where in a face its label comes from: as a heat map where readings are drawn, as numbers in JSON",
    )
    add_views(parser, "of each face, whose probabilities are averaged: ")
    parser.add_argument(
        "--providers",
        type=provider_names,
        default=CPU,
        metavar="NAMES",
        help=f"what runs the nets, the preferred one first, as cuda,cpu: {', '.join(PROVIDERS)}, where installed; "
        "the CPU runs what none of them can (default cpu)",
    )


def build_predictor(args: argparse.Namespace, **options: Any) -> "Predictor":
    """The Predictor that the arguments ask for, with more options of its own."""
    from pipeline.predictor import Predictor

    return Predictor(
        args.model,
        detector=args.detector,
        detector_model=args.detector_model,
        min_face=args.min_face,
        uncertain=args.uncertain,
        class_prior=args.class_prior,
        views=args.views,
        explain=args.explain,
        providers=args.providers,
        **options,
    )


def provider_names(text: str) -> list[str]:
    """An argument that names providers, with commas between."""
    names = text.split(",")
    wrong = [name for name in names if name not in PROVIDERS]
    if wrong:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} where some of {', '.join(PROVIDERS)} were expected")
    return names


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """What finds faces."""
    parser.add_argument(
        "--detector",
        choices=sorted(DETECTORS),
        default="mtcnn",
        help="what finds faces; none takes every image for one (default mtcnn)",
    )
    parser.add_argument(
        "--detector-model", type=Path, metavar="FILE", help="of yolo, or of another yunet than the one that ships"
    )


def add_views(parser: argparse.ArgumentParser, of: str) -> None:
    """How many views a net's probabilities are averaged over. of: the beginning of the help."""
    parser.add_argument(
        "--views",
        type=int,
        choices=COUNTS,
        default=1,
        help=f"{of}2 adds the mirror image, 10 takes four corners, the centre and their mirror images (default 1)",
    )


def add_net_arguments(parser: argparse.ArgumentParser) -> None:
    """What names a trained net and its data."""
    parser.add_argument("deploy", type=Path, help="deploy.prototxt, whose input has the scale of pixels")
    parser.add_argument("weights", type=Path, help=".caffemodel")
    parser.add_argument("--databases", type=Path, required=True, help="folder that the lmdb stage wrote")
    parser.add_argument("--mean", type=Path, required=True, help="mean.binaryproto of the training database")


def add_train_on(parser: argparse.ArgumentParser) -> None:
    """What a run's databases hold."""
    parser.add_argument(
        "--train-on",
        choices=sorted(TRAIN_ON),
        default="aligned",
        help="what the databases hold: aligned faces, whole images, or both (default aligned)",
    )


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """What says which engine computes, and where real Caffe is."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="torch",
        help="what computes: torch, or caffe, which is real Caffe (default torch)",
    )
    parser.add_argument(
        "--caffe",
        metavar="WHERE",
        help="where real Caffe is: docker, podman, conda, or a root that "
        "docker/caffe-root.sh made (default: the root in CAFFE_ROOT)",
    )


def add_model_name(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The name and version that a model folder's model.json states."""
    shown = default or "the net's"
    parser.add_argument("--name", type=model_name, default=default, help=f"the model's name (default: {shown})")
    parser.add_argument("--model-version", type=model_name, default="1", help="the model's version (default: 1)")


def model_name(text: str) -> str:
    """An argument that is the name or the version of a model."""
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} where 1 to {MAX_NAME} printable characters were expected")
    return text


def positive(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} where at least 1 was expected")
    return value


def port_number(text: str) -> int:
    """An argument that is a port of TCP, 0 for any that is free."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{value} where 0 to 65535 was expected")
    return value


def interval(text: str) -> float:
    """An argument that is a time from one search for faces to the next, in seconds."""
    from pipeline.faces.tracking import check_every

    value = float(text)
    try:
        check_every(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


def probability(text: str) -> float:
    """An argument from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} where 0 to 1 was expected")
    return value


def prior(text: str) -> ClassPrior:
    """An argument that is a class prior."""
    try:
        return parse_prior(text)
    except ClassPriorError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
