"""Write the images of a list into a database of Datums: convert_imageset [FLAGS] ROOTFOLDER/ LISTFILE DB_NAME."""

import os
import secrets
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.base.threads import map_ahead
from pipeline.caffe.database import DatabaseWriter, datum_from_image, record_key
from pipeline.caffe.images import ImageFileError, ImageList, decode_with_opencv, read_image_file
from pipeline.caffe.proto.caffe_pb2 import Datum
from pipeline.caffe.tools.flags import FlagParser

IMAGES_PER_REPORT = 1000
MAX_KEY_BYTES = 511  # LMDB's
MAX_RESIZED_PIXELS = 1 << 28


class Form(NamedTuple):
    """What becomes of each image. width, height: 0 leaves them, and as in Caffe one alone does nothing.

    encode_type: what images are encoded as where they are, "" being what each of them is already.
    """

    gray: bool = False
    width: int = 0
    height: int = 0
    encoded: bool = False
    encode_type: str = ""


class Record(NamedTuple):
    """What a database holds of an image, and the image's shape (C, H, W)."""

    datum: Datum
    shape: tuple[int, ...]


def add_arguments(parser: FlagParser) -> None:
    parser.add_flag("gray", False, "read the images as grey ones")
    parser.add_flag("shuffle", False, "put the images into a random order")
    parser.add_flag("seed", -1, "of that order, for the same one again; -1 draws one, and the log tells it")
    parser.add_flag("backend", "lmdb", "form of the database: lmdb or leveldb")
    parser.add_flag("resize_width", 0, "width to resize the images to; 0 leaves them")
    parser.add_flag("resize_height", 0, "height to resize the images to; 0 leaves them")
    parser.add_flag("check_size", False, "refuse images of different sizes")
    parser.add_flag("encoded", False, "store encoded images instead of pixels")
    parser.add_flag("encode_type", "", "what to encode them as, png or jpg for example; else each stays what it is")
    parser.add_argument("root", metavar="ROOTFOLDER/", help="goes before each path of the list; end it with a slash")
    parser.add_argument("list", metavar="LISTFILE", type=Path, help='lines of "path label"')
    parser.add_argument("database", metavar="DB_NAME", type=Path, help="folder to write, which must not exist")


def run(args: Namespace) -> None:
    form = Form(
        args.gray,
        max(0, args.resize_width),
        max(0, args.resize_height),
        args.encoded or bool(args.encode_type),
        args.encode_type.lower(),
    )
    images = ImageList(args.list)
    order = np.arange(len(images))
    if args.shuffle:
        seed = args.seed if args.seed >= 0 else secrets.randbelow(2**31)
        log.info("Shuffling data; -seed %d makes this order again", seed)
        order = np.random.RandomState(seed).permutation(len(images))  # whose stream NEP 19 freezes
    log.info("A total of %d images.", len(images))
    if args.encode_type and not args.encoded:
        log.info("encode_type specified, assuming encoded=true.")
    if bool(form.width) != bool(form.height):
        log.warning("resize_width and resize_height do nothing without each other, as in Caffe")
    convert_imageset(args.root, images, order, args.database, form, backend=args.backend, same_size=args.check_size)


def convert_imageset(
    root: str, images: ImageList, order: np.ndarray, database: Path, form: Form, *, backend: str, same_size: bool
) -> int:
    """Write a database of a list's images, in an order of its lines; return how many are in it.

    A path goes after `root`. As in Caffe, the log reports an image that cannot be read, and its number is left out; the
    last line counts them. Raises InputError when there is none that can, for one of another shape than the first's if
    all are to be of the `same_size`, and for a type that cannot be encoded; DatabaseError when the folder exists or
    cannot be written. Nothing is left of it then.
    """
    if form.width * form.height > MAX_RESIZED_PIXELS:
        raise InputError(
            f"resize_width {form.width}, resize_height {form.height}: at most {MAX_RESIZED_PIXELS} pixels were expected"
        )
    if form.encode_type:
        _check_encoder(form.encode_type, "encode_type")
    for line, path in enumerate(images.paths):
        if backend == "lmdb" and len(record_key(line, path)) > MAX_KEY_BYTES:
            raise InputError(
                f"{images.name(line)}: {len(os.fsencode(path))} bytes, where a record's key has at most "
                f"{MAX_KEY_BYTES}, number and all; move a part of the path into ROOTFOLDER"
            )

    def read(line: int) -> Record | ImageFileError:
        try:
            return make_record(root + images.paths[line], images.labels[line], form)
        except ImageFileError as error:
            return error

    written, shape = 0, None
    with DatabaseWriter(database, backend) as writer:
        for number, (line, record) in enumerate(zip(order, map_ahead(read, order), strict=True)):
            if isinstance(record, ImageFileError):
                log.error("Could not open or find file %s", record)
                continue
            shape = shape or record.shape
            if same_size and record.shape != shape:
                raise InputError(
                    f"{images.name(line)}: shape {record.shape} where {shape} as of the first was "
                    "expected; give resize_width and resize_height"
                )
            writer.put(record_key(number, images.paths[line]), record.datum)
            written += 1
            if written % IMAGES_PER_REPORT == 0:
                log.info("Processed %d files.", written)
        if not written:
            raise InputError(
                f"{images.path}: none of its {len(images)} images can be read in '{root}'; is ROOTFOLDER "
                "right, and does it end with a slash?"
            )
    if written % IMAGES_PER_REPORT:
        log.info("Processed %d files.", written)
    if written < len(images):
        log.error("%d of %d images could not be read and are not in %s", len(images) - written, len(images), database)
    return written


def make_record(path: str, label: int, form: Form) -> Record:
    """Make the record of an image's file. Raises ImageFileError when it cannot be read, InputError as above."""
    name = os.fsencode(path).decode(errors="backslashreplace")
    data = read_image_file(path, name)
    image = decode_with_opencv(data, name, color=not form.gray, height=form.height, width=form.width)
    pixels = np.atleast_3d(image).transpose(2, 0, 1)
    if not form.encoded:
        return Record(datum_from_image(pixels, label), pixels.shape)
    own_type = os.path.splitext(path)[1].removeprefix(".").lower()
    encode_type = form.encode_type or own_type
    # A file that is of the type already stays as it is, even where its image is no grey one; of the types only jpeg
    # goes by two names (caffe/util/io.cpp, ReadImageToDatum and matchExt).
    same_type = own_type == encode_type or (own_type, encode_type) == ("jpeg", "jpg")
    if not same_type or form.width or form.height:
        _check_encoder(encode_type, name)
        data = cv2.imencode(f".{encode_type}", image)[1].tobytes()
    return Record(Datum(data=data, label=label, encoded=True), pixels.shape)


def _check_encoder(encode_type: str, name: str) -> None:
    if not cv2.haveImageWriter(f"x.{encode_type}"):
        raise InputError(
            f"{name}: '{encode_type}' is no type that images can be encoded as; give encode_type png, jpg or another"
        )
