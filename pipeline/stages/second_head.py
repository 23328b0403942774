"""second_head: make a net of its own of the second head that a run trained beside its labels, as FER+'s votes are."""

import argparse
from pathlib import Path

import numpy as np

from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.proto.blob_proto import from_blobproto, read_mean, to_blobproto, write_mean
from pipeline.caffe.proto.caffe_pb2 import LayerParameter, NetParameter
from pipeline.caffe.proto.files import read_net, read_weights, write_binary, write_prototxt
from pipeline.classifier import model_folder
from pipeline.classifier.objective import AUXILIARY_SCORES, last_inner_product
from pipeline.data import ferplus, manifest
from pipeline.stages.arguments import add_train_on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "head_of", type=Path, metavar="MODEL", help="float32 model folder of the run that trained the second head"
    )
    parser.add_argument("labels", type=Path, help="labels.txt with expressions that were voted for, FER+'s eight say")
    parser.add_argument(
        "output", type=Path, help="folder for deploy.prototxt, best.caffemodel, mean.binaryproto and run.json"
    )
    add_train_on(parser)


def run(args: argparse.Namespace) -> None:
    second_head(args.head_of, args.labels, args.output, train_on=args.train_on)


def second_head(model: Path, labels: Path, output: Path, *, train_on: str = "aligned") -> None:
    """Write the deploy.prototxt and best.caffemodel of a net whose classifier is the second head, one output a label.

    The mean file and the run.json of the training go beside them.

    What could be voted for beside the labels is left out: its rows of the classifier go, and the softmax is over the
    others. train_on: what the databases hold that the net will be measured on. Raises InputError when the model folder
    has no weights, they have no second head, the model has not learned from such faces, or a label was not voted for.
    """
    names = manifest.read_labels(labels)
    strange = [name for name in names if name not in ferplus.CHOICES]
    if strange:
        raise InputError(
            f"{labels}: {', '.join(strange)}, where some of FER+'s {', '.join(ferplus.CHOICES)} were "
            "expected; extract with labels: ferplus"
        )
    model_folder.check_faces(model_folder.read(model), train_on)
    weights = model / model_folder.WEIGHTS
    if not weights.exists():
        raise InputError(
            f"{model}: no {model_folder.WEIGHTS}, which int8 leaves out and a second head is made of; export the run "
            "with export_precision=float32"
        )
    net, trained = read_net(model / model_folder.DEPLOY), read_weights(weights)
    classifier = last_inner_product(net)
    head = next((layer for layer in trained.layer if layer.name == AUXILIARY_SCORES), None)
    if classifier is None or head is None or len(head.blobs) != 2:
        raise InputError(
            f"{weights}: no layer {AUXILIARY_SCORES}, where a second head was expected; train with auxiliary=votes"
        )
    classifier.inner_product_param.num_output = len(names)
    write_prototxt(output / "deploy.prototxt", net)
    write_binary(output / "best.caffemodel", _with_head(trained, classifier.name, head, names))
    write_mean(output / "mean.binaryproto", read_mean(model / model_folder.MEAN))
    model_folder.write_json(output / "run.json", model_folder.read_training(model))
    log.info("the second head of %s reads %s", weights, ", ".join(names))


def _with_head(trained: NetParameter, classifier: str, head: LayerParameter, names: tuple[str, ...]) -> NetParameter:
    """The weights with the head's rows for `names` in the classifier, and no second head."""
    rows = [ferplus.CHOICES.index(name) for name in names]
    result = NetParameter(name=trained.name)
    for layer in trained.layer:
        if layer.name == AUXILIARY_SCORES:
            continue
        kept = result.layer.add()
        kept.CopyFrom(layer)
        if layer.name == classifier:
            del kept.blobs[:]
            for blob in head.blobs:
                kept.blobs.append(to_blobproto(np.ascontiguousarray(from_blobproto(blob, head.name)[rows])))
    return result
