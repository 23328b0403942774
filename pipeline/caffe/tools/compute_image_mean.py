"""Average the images of a database: compute_image_mean [FLAGS] INPUT_DB [OUTPUT_FILE]."""

from argparse import Namespace
from pathlib import Path

from pipeline.base.console import log
from pipeline.caffe.database import DatabaseReader
from pipeline.caffe.database.mean_image import channel_means, mean_image
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.caffe.tools.flags import FlagParser

IMAGES_PER_REPORT = 10000


def add_arguments(parser: FlagParser) -> None:
    parser.add_flag("backend", "lmdb", "form of the database: lmdb or leveldb")
    parser.add_argument("database", metavar="INPUT_DB", type=Path, help="database of images of one size")
    parser.add_argument("output", metavar="OUTPUT_FILE", type=Path, nargs="?", help="mean file to write, a binaryproto")


def run(args: Namespace) -> None:
    count = 0

    def tell(more: int) -> None:
        nonlocal count
        for reports in range(count // IMAGES_PER_REPORT + 1, (count + more) // IMAGES_PER_REPORT + 1):
            log.info("Processed %d files.", reports * IMAGES_PER_REPORT)
        count += more

    with DatabaseReader(args.database, args.backend) as reader:
        log.info("Starting iteration")
        image = mean_image(reader, tell)
    if count % IMAGES_PER_REPORT:
        log.info("Processed %d files.", count)
    if args.output:
        log.info("Write to %s", args.output)
        write_mean(args.output, image)
    log.info("Number of channels: %d", len(image))
    for channel, mean in enumerate(channel_means(image)):
        log.info("mean_value channel [%d]: %g", channel, mean)
