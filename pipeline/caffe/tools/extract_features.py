"""Write blobs of a net into databases: extract_features WEIGHTS NET BLOBS DATABASES BATCHES BACKEND [CPU|GPU [ID]]."""

from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.database import DatabaseWriter
from pipeline.caffe.net import Net, build_net
from pipeline.caffe.proto.caffe_pb2 import TEST, Datum
from pipeline.caffe.tools.flags import FlagParser

RECORDS_PER_REPORT = 1000
DATUM_AXES = 4  # of a blob: records, channels, height, width


def add_arguments(parser: FlagParser) -> None:
    parser.add_argument("weights", metavar="pretrained_net_param", type=Path, help=".caffemodel")
    parser.add_argument(
        "net",
        metavar="feature_extraction_proto_file",
        type=Path,
        help="the net's prototxt, with a data layer that is in phase TEST",
    )
    parser.add_argument("blobs", metavar="extract_feature_blob_name1[,name2,...]", help="blobs of the net")
    parser.add_argument(
        "databases",
        metavar="save_feature_dataset_name1[,name2,...]",
        help="a folder to write for each blob, which must not exist",
    )
    parser.add_argument("batches", metavar="num_mini_batches", help="how many batches to run")
    parser.add_argument("backend", metavar="db_type", help="form of the databases: lmdb or leveldb")
    parser.add_argument("mode", metavar="CPU/GPU", nargs="?", default="CPU", help="where to run (default CPU)")
    parser.add_argument("device", metavar="DEVICE_ID", nargs="?", default="0", help="which GPU (default 0)")


def run(args: Namespace) -> None:
    if not args.batches.isdecimal() or not int(args.batches):
        raise InputError(f"num_mini_batches '{args.batches}' where a number of at least 1 was expected")
    net = build_net(args.net, TEST, device=_device(args.mode, args.device))
    net.copy_from(args.weights)
    databases = [Path(name) for name in args.databases.split(",")]
    extract_features(net, args.blobs.split(","), databases, int(args.batches), args.backend)


def _device(mode: str, number: str) -> str:
    if mode == "CPU":
        return "cpu"
    if mode != "GPU" or not number.isdecimal():
        raise InputError(f"'{mode} {number}' where CPU, or GPU and its number, was expected")
    if int(number) >= torch.cuda.device_count():
        raise InputError(f"GPU {number}: there are {torch.cuda.device_count()} that can be used; say CPU")
    return f"cuda:{number}"


def extract_features(net: Net, blobs: Sequence[str], databases: Sequence[Path], batches: int, backend: str) -> None:
    """Run `batches` batches and write each of the blobs into a database of its own, a Datum of floats a record.

    Keys number the records in ten digits, from 0. A blob of up to four axes gives a record for each index of the first;
    the others are the Datum's channels, height and width. Raises InputError for a blob that the net does not have or
    that has more axes, and for a net that must be given its inputs; DatabaseError as DatabaseWriter does. Databases
    appear only when all are written.
    """
    if len(blobs) != len(databases):
        raise InputError(
            f"{len(blobs)} blobs ({', '.join(blobs)}) and {len(databases)} databases "
            f"({', '.join(map(str, databases))}), where as many were expected"
        )
    if len(set(databases)) < len(databases):
        raise InputError(f"databases {', '.join(map(str, databases))}: one for each blob was expected")
    for blob in blobs:
        if blob not in net.shapes:
            known = ", ".join(name for name in net.shapes if "_split_" not in name)
            raise InputError(f"unknown blob '{blob}'; net '{net.name}' has {known}")
        if len(net.shapes[blob]) > DATUM_AXES:
            raise InputError(
                f"blob '{blob}' has shape {net.shapes[blob]}, where at most {DATUM_AXES} axes were expected; reshape it"
            )
    if net.inputs:
        raise InputError(
            f"net '{net.name}' has the inputs {', '.join(net.inputs)}, where a data layer in phase TEST was expected"
        )
    with ExitStack() as stack:
        writers = [stack.enter_context(DatabaseWriter(path, backend)) for path in databases]
        counts = [0] * len(blobs)
        log.info("Extracting Features")
        with torch.no_grad():
            for _ in range(batches):
                net.forward()
                for index, (blob, writer) in enumerate(zip(blobs, writers, strict=True)):
                    for record in _records(net.blobs[blob].cpu().numpy()):
                        writer.put(b"%010d" % counts[index], _datum(record))
                        counts[index] += 1
                        if counts[index] % RECORDS_PER_REPORT == 0:
                            _report(counts[index], blob)
    for count, blob in zip(counts, blobs, strict=True):
        _report(count, blob)
    log.info("Successfully extracted the features!")


def _records(blob: np.ndarray) -> np.ndarray:
    """The blob with all of a Datum's axes: (N, channels, height, width)."""
    return blob.reshape(blob.shape + (1,) * (DATUM_AXES - blob.ndim))


def _datum(record: np.ndarray) -> Datum:
    channels, height, width = record.shape
    return Datum(channels=channels, height=height, width=width, float_data=record.ravel().tolist())


def _report(count: int, blob: str) -> None:
    log.info("Extracted features of %d query images for feature blob %s", count, blob)
