"""serve: read expressions for others, over HTTP and WebSockets, and on a page to try it on."""

import argparse
import importlib
import ipaddress
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.base.console import log, printable
from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.base.text_files import read_text
from pipeline.classifier import model_folder
from pipeline.classifier.hub_card import without_front_matter
from pipeline.stages.arguments import (
    PREDICTOR_SETTINGS,
    add_predictor_arguments,
    build_predictor,
    port_number,
    positive,
)

if TYPE_CHECKING:
    from socket import socket

    from pipeline.server.guard import Access
    from pipeline.server.transport import Listen

TOKEN = "SERVE_TOKEN"  # environment variable
MIN_TOKEN = 16  # characters
SETTINGS = PREDICTOR_SETTINGS  # what the environment may give


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_predictor_arguments(parser)
    where = parser.add_argument_group("where it listens; any address but this machine's own takes a token and TLS")
    where.add_argument("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1)")
    where.add_argument("--port", type=port_number, default=8000, help="0 for any that is free (default 8000)")
    where.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=f"holds the token that clients must send (or set {TOKEN} in the environment)",
    )
    where.add_argument("--tls-cert", type=Path, metavar="PEM", help="certificate, with those it was signed by")
    where.add_argument("--tls-key", type=Path, metavar="PEM", help="its key, without a password")
    where.add_argument(
        "--proxy", metavar="ADDRESS", help="requests come by a proxy at this address or network, which does the TLS"
    )
    where.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="a name that clients call it by; others are refused (may be repeated)",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument("--workers", type=positive, default=2, help="threads that read images (default 2)")
    limits.add_argument(
        "--processes",
        type=positive,
        default=1,
        help="processes behind the port, each with the model, --workers threads and limits of its own (default 1)",
    )
    limits.add_argument("--sessions", type=positive, default=16, help="WebSockets open at once (default 16)")
    limits.add_argument(
        "--rate",
        type=positive,
        default=20,
        help="images of up to a megapixel a second from one client; larger ones count as their megapixels (default 20)",
    )
    limits.add_argument("--max-megabytes", type=positive, default=16, help="of one request (default 16)")
    limits.add_argument("--max-megapixels", type=positive, default=40, help="of one image (default 40)")
    limits.add_argument(
        "--search-megapixels",
        type=positive,
        default=4,
        help="an image with more is scaled down before faces are looked for (default 4)",
    )
    limits.add_argument(
        "--max-faces",
        type=positive,
        default=100,
        help="that are read in one image or frame, the largest ones (default 100)",
    )
    limits.add_argument("--allow-urls", action="store_true", help="fetch images by their public addresses")


def run(args: argparse.Namespace) -> None:
    try:
        from pipeline.server import processes, transport

        importlib.import_module("pipeline.server.app")  # which each process needs
    except ModuleNotFoundError as error:
        raise InputError(f"serve needs the package {error.name}; pip install 'caffe-expressions[serve]'") from None
    listen = listen_of(args)
    choose_access(listen, read_server_token(args.token_file), args.name)  # what is wrong is said before a model is read
    if args.processes == 1:
        serve_here(args, None, None)
        return
    listener = transport.bind(listen)
    try:
        processes.supervise(
            partial(serve_here, args), listener, args.processes, partial(transport.announce, listener, listen)
        )
    finally:
        listener.close()
        log.info("stopped")


def listen_of(args: argparse.Namespace) -> "Listen":
    from pipeline.server.transport import Listen

    return Listen(args.host, args.port, args.tls_cert, args.tls_key, args.proxy)


def serve_here(args: argparse.Namespace, listener: "socket | None", started: Callable[[], None] | None) -> None:
    """Serve in this process until SIGINT or SIGTERM. listener, started: of one of several processes."""
    from pipeline.server import app, limits, transport
    from pipeline.server.model import Model

    listen = listen_of(args)
    access = choose_access(listen, read_server_token(args.token_file), args.name)
    bounds = limits.Limits(
        body_bytes=args.max_megabytes << 20,
        pixels=args.max_megapixels * 1_000_000,
        searched_pixels=args.search_megapixels * 1_000_000,
        faces=args.max_faces,
        workers=args.workers,
        rate=args.rate,
        sessions=args.sessions,
    )
    predictor = build_predictor(args, max_faces=bounds.faces)
    model, moving_model = (
        Model(
            folder.name,
            folder.version,
            sha256(folder.onnx),
            folder.labels,
            without_front_matter(read_text(folder.path / model_folder.CARD, model_folder.REMEDY)),
        )
        for folder in (predictor.folder, predictor.moving_folder)
    )
    application = app.build(
        predictor,
        model,
        access,
        bounds,
        urls=args.allow_urls,
        moving_model=moving_model,
        # Not of a net without class maps unless the server's owner says so: Grad-CAM takes much longer, and torch.
        explaining=predictor.explaining() if args.explain or predictor.classifier.has_class_maps else None,
    )
    if listener is not None:
        transport.run(application, listener, listen, bounds, started)
        return
    listener = transport.bind(listen)
    transport.announce(listener, listen)
    try:
        transport.run(application, listener, listen, bounds)
    finally:
        log.info("stopped")


def read_server_token(file: Path | None) -> str | None:
    """The token from the file or, without one, the environment. Raises InputError when it is easily guessed."""
    if file is not None:
        token, source = read_text(file, "write the token in plain letters").strip(), str(file)
    elif TOKEN in os.environ:
        token, source = os.environ[TOKEN].strip(), f"the environment variable {TOKEN}"
    else:
        return None
    if len(token) < MIN_TOKEN or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise InputError(
            f"{source}: at least {MIN_TOKEN} letters, digits or signs without spaces were expected as a token; "
            "make one with: openssl rand -hex 32"
        )
    return token


def choose_access(listen: "Listen", token: str | None, names: list[str]) -> "Access":
    """Who may ask.

    Raises InputError where anyone could, where the token would be read on its way, and for a name that no client sends.
    """
    from pipeline.server.guard import LOOPBACK, Access, bare_name
    from pipeline.server.transport import check_certificate

    if (listen.certificate is None) != (listen.key is None):
        raise InputError("--tls-cert and --tls-key: one was given without the other; give both")
    if listen.certificate is not None and listen.key is not None:
        check_certificate(listen.certificate, listen.key)
    if listen.proxy is not None:
        try:
            ipaddress.ip_network(listen.proxy)
        except ValueError:
            raise InputError(f"--proxy {listen.proxy}: an address or a network was expected, as 10.0.0.0/8") from None
    if not listen.loopback and token is None:
        raise InputError(
            f"--host {listen.host}: others reach it, so a token is needed; set {TOKEN} or give --token-file "
            "(make one with: openssl rand -hex 32)"
        )
    if not listen.loopback and listen.certificate is None and listen.proxy is None:
        raise InputError(
            f"--host {listen.host}: others reach it, so TLS is needed; give --tls-cert and --tls-key, "
            "or --proxy ADDRESS where a proxy does the TLS"
        )
    if not names and not listen.loopback:
        return Access(token, None)  # whoever has the token may call this machine what they like
    for name in names:
        if not bare_name(name):
            raise InputError(
                f"--name {printable(name)}: a host's name or address alone was expected, without https:// and port, as "
                "faces.example.org; with letters beyond English its form that begins with xn--"
            )
    return Access(token, LOOPBACK | {listen.host} | set(map(bare_name, names)))
