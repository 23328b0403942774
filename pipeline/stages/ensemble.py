"""ensemble: join several model folders into one that gives the mean of their probabilities, and measure it."""

import argparse
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.base.atomic import atomic_folder
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.base.text_files import read_json
from pipeline.caffe.database import DatabaseReader
from pipeline.caffe.proto.blob_proto import write_mean
from pipeline.classifier import model_folder
from pipeline.classifier.hub_card import UNKNOWN
from pipeline.classifier.model_folder import Classifier, ModelFolder
from pipeline.classifier.trained import Measurable, read_batches, versions
from pipeline.data import manifest
from pipeline.stages.arguments import add_model_name, add_train_on, add_views
from pipeline.stages.evaluate import measure
from pipeline.stages.export import TOLERANCE, held_out_database, read_model_metrics, seal, write_card

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "data", "prob"


class EnsembleError(InputError):
    """Models that cannot be one ensemble, or whose joint graph does not answer as they do."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, help="folder to write metrics.json, confusion.png and model/ to")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="two or more: names of runs, or model folders")
    parser.add_argument("--databases", type=Path, required=True, help="folder that the lmdb stage wrote")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.csv that the databases were made from")
    add_train_on(parser)
    add_views(parser, "of each image, whose probabilities are averaged: ")
    add_model_name(parser, "Ensemble")


def run(args: argparse.Namespace) -> None:
    ensemble(
        args.models,
        args.output,
        databases=args.databases,
        manifest_path=args.manifest,
        train_on=args.train_on,
        views=args.views,
        name=args.name,
        version=args.model_version,
    )


def ensemble(
    models: list[str],
    output: Path,
    *,
    databases: Path,
    manifest_path: Path,
    train_on: str = "aligned",
    views: int = 1,
    name: str = "Ensemble",
    version: str = "1",
) -> dict[str, Any]:
    """Measure the mean of several models' probabilities and write the joint model folder `output`/model.

    The members may have different nets and pre-processing; where that differs, each member's is put into the graph,
    and ten views are then not to be had. `output` gets metrics.json and confusion.png too, as evaluate writes them;
    the training shares are the mean of the members'.

    Args:
        models: names or folders of two or more models (model_folder.find).
        databases, manifest_path, views: as evaluate has them.
        train_on: what the databases hold (model_folder.TRAIN_ON).

    Returns:
        What model.json holds.

    Raises:
        EnsembleError: the members have different faces or image sizes, or are of different ONNX versions.
        InputError: a model folder, a database or the manifest is missing or damaged, or a member has other labels or
            has not learned from such faces.
    """
    import onnx

    members = [model_folder.read(model_folder.find(model)) for model in models]
    _check(members, databases, train_on)
    for member in members:
        if member.training_shares is None:
            log.warning(
                "%s: no training_shares, so it is taken to have learned the label shares of %s; export it with the "
                "metrics of evaluate to say which it learned",
                member.path / model_folder.INDEX,
                databases,
            )
    same = _same_preprocessing(members)
    preprocessing = members[0].preprocessing
    if not same:
        preprocessing = replace(preprocessing, crop_size=0, scale=1.0)
    graph = join(members)
    inputs = [member.path for member in members]
    with atomic_folder(output / "model", own=model_folder.FILES, inputs=inputs) as folder:
        onnx.save(graph, folder / model_folder.ONNX)
        if same:
            shutil.copyfile(members[0].path / model_folder.MEAN, folder / model_folder.MEAN)
        else:
            write_mean(folder / model_folder.MEAN, np.zeros(_shape(members[0]), np.float32))
        manifest.write_labels(folder / model_folder.LABELS, members[0].labels)
        model_folder.write_json(folder / model_folder.PREPROCESSING, asdict(preprocessing))
        session = Classifier.session((folder / model_folder.ONNX).read_bytes())
        transformer = preprocessing.transformer(folder / model_folder.MEAN)
        joint = Measurable(
            name, OUTPUT, lambda images: session.run([OUTPUT], {INPUT: images})[0], transformer, members[0].labels
        )
        difference = _compare(joint, members, databases)
        measure(
            joint,
            output,
            databases=databases,
            manifest_path=manifest_path,
            views=views,
            member_shares=[member.training_shares for member in members],
            files=tuple(member.onnx for member in members),
            made_by=versions("numpy", "onnxruntime", "scikit-learn"),
        )
        told = [read_json(member.path / model_folder.INDEX, model_folder.REMEDY) for member in members]
        licenses = {str(each.get("license", UNKNOWN)) for each in told}
        index = {
            "name": name,
            "version": version,
            "license": licenses.pop() if len(licenses) == 1 else "other",
            "precision": " and ".join(sorted({str(each.get("precision")) for each in told})),
            "members": [
                {"name": member.name, "version": member.version, "onnx_sha256": sha256(member.onnx)}
                for member in members
            ],
            model_folder.SEEN: sorted(set.intersection(*map(model_folder.faces_seen, members))),
            "greatest_difference_from_members": difference,
            **read_model_metrics(output / "metrics.json", joint.labels),
            "created_by": versions("numpy", "onnx", "onnxruntime"),
        }
        net = f"the mean of {len(members)} nets: {', '.join(member.name for member in members)}"
        size = seal(folder, index, write_card(index, joint.labels, preprocessing, net))
    log.info("%s: %s version %s, %d members, %.1f MB", output / "model", name, version, len(members), size / 1e6)
    return index


def _shape(member: ModelFolder) -> tuple[int, int, int]:
    wanted = member.preprocessing
    return wanted.channels, wanted.height, wanted.width


def _check(members: list[ModelFolder], databases: Path, train_on: str) -> None:
    if len(members) < 2:
        raise EnsembleError(f"{members[0].path}: one model alone, where two or more were expected for an ensemble")
    first = members[0]
    for member in members:
        model_folder.check_labels(member, databases / "labels.txt")
        if (_shape(member), member.preprocessing.faces) != (_shape(first), first.preprocessing.faces):
            raise EnsembleError(
                f"{member.path}: takes {member.preprocessing.faces} faces of shape {_shape(member)} where {first.path} "
                f"takes {first.preprocessing.faces} ones of {_shape(first)}; an ensemble reads one face"
            )
        model_folder.check_faces(member, train_on)


def _same_preprocessing(members: list[ModelFolder]) -> bool:
    means = {sha256(member.path / model_folder.MEAN) for member in members}
    return len({member.preprocessing for member in members}) == len(means) == 1


def join(members: list[ModelFolder]) -> "onnx.ModelProto":
    """One graph from an image to the mean of the members' probabilities.

    Its input `data` is (N, C, h, w) and pre-processed, or where members differ in that (N, C, H, W) and raw.
    """
    import onnx
    from onnx import TensorProto, compose, helper

    models = [onnx.load_from_string(member.read_onnx()) for member in members]
    if len({(model.ir_version, str(model.opset_import)) for model in models}) > 1:
        raise EnsembleError(f"{members[0].path}: of another ONNX version than other members; export them all again")
    same = _same_preprocessing(members)
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []
    means = []
    for number, (member, model) in enumerate(zip(members, models, strict=True)):
        prefix = f"member{number}/"
        graph = compose.add_prefix(model, prefix).graph
        value = INPUT if same else _prepare(member, prefix, nodes, constants)
        nodes.append(helper.make_node("Identity", [value], [graph.input[0].name], f"{prefix}input"))
        nodes.extend(graph.node)
        constants.extend(graph.initializer)
        means.append(next(output.name for output in graph.output if len(output.type.tensor_type.shape.dim) == 2))
    nodes.append(helper.make_node("Mean", means, [OUTPUT], "mean"))
    wanted = members[0].transformer().output_shape(*_shape(members[0])) if same else _shape(members[0])
    classes = len(members[0].labels)
    joint = helper.make_model(
        helper.make_graph(
            nodes,
            "ensemble",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", *wanted])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", classes])],
            constants,
        ),
        opset_imports=models[0].opset_import,
        ir_version=models[0].ir_version,
        producer_name=models[0].producer_name,
        producer_version=models[0].producer_version,
    )
    onnx.checker.check_model(joint, full_check=True)
    return joint


def _prepare(
    member: ModelFolder, prefix: str, nodes: "list[onnx.NodeProto]", constants: "list[onnx.TensorProto]"
) -> str:
    """Add a member's pre-processing, (pixel - mean) * scale of the centre; return its value's name."""
    from onnx import helper, numpy_helper

    transformer = member.transformer()
    _, height, width = transformer.output_shape(*_shape(member))
    top, left = (member.preprocessing.height - height) // 2, (member.preprocessing.width - width) // 2
    assert transformer.mean is not None
    mean = transformer.mean[None, :, top : top + height, left : left + width]
    value = INPUT
    for operator, inputs in (
        ("Slice", [np.array([top, left]), np.array([top + height, left + width]), np.array([2, 3])]),
        ("Sub", [np.ascontiguousarray(mean, np.float32)]),
        ("Mul", [np.array(member.preprocessing.scale, np.float32)]),
    ):
        name = f"{prefix}{operator}"
        names = [f"{name}:{place}" for place in range(len(inputs))]
        constants.extend(numpy_helper.from_array(array, each) for array, each in zip(inputs, names, strict=True))
        nodes.append(helper.make_node(operator, [value, *names], [name], name))
        value = name
    return value


def _compare(joint: Measurable, members: list[ModelFolder], databases: Path) -> float:
    """The greatest difference from the mean of the members' own answers. Raises EnsembleError above TOLERANCE."""
    with DatabaseReader(held_out_database(databases)) as reader:
        _, images, _ = next(read_batches(reader, len(joint.labels)))
    alone = [Classifier.as_trained(member)(images) for member in members]
    difference = float(np.abs(joint.forward(images) - np.mean(alone, axis=0)).max())
    log.info("the joint graph against its members: greatest difference %.2e on %d images", difference, len(images))
    if not difference <= TOLERANCE:  # NaN too
        raise EnsembleError(
            f"{joint.name}: the joint graph differs from its members by {difference:.2e} where at most {TOLERANCE:g} "
            "was expected; nothing was written"
        )
    return difference
