"""web: write a static page that finds and reads faces in the visitor's browser, from any model folder."""

import argparse
from pathlib import Path

from pipeline.base.console import log
from pipeline.predictor import Predictor
from pipeline.web.static_page import RUNTIME, write_static_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model folder, the name of a run, or a model that ships, as fast")
    parser.add_argument("output", type=Path, help="the folder to write, which any web server can serve")
    parser.add_argument(
        "--runtime",
        type=Path,
        default=RUNTIME,
        metavar="FOLDER",
        help="where npm ci put ONNX Runtime Web (default: pipeline/web/runtime)",
    )


def run(args: argparse.Namespace) -> None:
    size = write_static_page(Predictor(args.model), args.output, runtime=args.runtime)
    log.info("%s: a page of %.0f MB; try it with: python -m http.server -d %s", args.output, size / 1e6, args.output)
