"""The model folder that export writes and predict reads: everything a net needs to be used, with its hashes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.base.atomic import atomic_file
from pipeline.base.errors import InputError
from pipeline.base.hashing import sha256
from pipeline.base.onnx_file import read_onnx
from pipeline.base.onnx_runtime import CPU, open_session
from pipeline.base.text_files import read_json
from pipeline.caffe.data_transformer import Transformer
from pipeline.caffe.proto.caffe_pb2 import TEST, TransformationParameter
from pipeline.caffe.proto.prototxt_errors import shorten
from pipeline.classifier import class_prior
from pipeline.classifier.calibration import TEMPERATURES, calibrate
from pipeline.classifier.class_prior import ClassPrior, ClassPriorError
from pipeline.classifier.features import find_features, with_output
from pipeline.classifier.run_record import is_run_record
from pipeline.classifier.views import COUNTS, ViewsError, check, read_views
from pipeline.data import manifest

if TYPE_CHECKING:
    import onnxruntime

    from pipeline.caffe.net import Net

INDEX = "model.json"  # name, version, origin, figures, and the hash of every other file
DEPLOY = "deploy.prototxt"  # left out of an ensemble
WEIGHTS = "weights.caffemodel"  # left out of an ensemble, and of a model in int8
TENSORS = "weights.safetensors"  # the same values, in half precision beside int8; left out of an ensemble
ONNX = "model.onnx"
LABELS = "labels.txt"
MEAN = "mean.binaryproto"
PREPROCESSING = "preprocessing.json"
CLASS_MAPS = "class_maps"  # the ONNX file's second output, where the net has one
CARD = "MODEL_CARD.md"
SEEN = "faces_seen"  # of model.json: FACES that an ensemble's members have all learned from
NEEDED = (ONNX, LABELS, MEAN, PREPROCESSING, CARD)
FILES = (INDEX, DEPLOY, WEIGHTS, TENSORS, *NEEDED)

REMEDY = "fetch or export the model again"
# What preprocessing.json may say.
FACES = ("aligned", "images")
KINDS = {"aligned": "aligned faces", "images": "whole images"}
TRAIN_ON = {"aligned": {"aligned"}, "images": {"images"}, "both": {"aligned", "images"}}  # by the setting
CHANNELS = (1, 3)
MAX_SIDE = 4096  # pixels
MAX_NAME = 200  # characters of the model's name or version
SCALES = (1e-6, 1e6)

MODELS = Path(__file__).resolve().parents[1] / "weights"
RUNS = Path("results")  # a run's model lies in results/RUN/model
# The models that ship, by the names users call them by; and which of these reads each kind of input by default.
SHIPPED = {"fast": "fast", "accurate": "accurate", "ferplus": "ferplus"}
DEFAULTS = {"images": "accurate", "moving": "fast"}


class ModelError(InputError):
    """A model folder that cannot be used."""


@dataclass(frozen=True)
class Preprocessing:
    """From a face to the net's input.

    channels, height, width: of the image that is given (grey where channels is 1). crop_size: of its centre, what the
    net sees; 0 for all of it. scale: what pixels are multiplied by once the mean image is subtracted. faces: `aligned`
    where the net learned from aligned faces, `images` where from whole images.
    """

    channels: int
    height: int
    width: int
    crop_size: int
    scale: float
    faces: str

    def transformer(self, mean: Path) -> Transformer:
        """The TEST-phase transformer, the very one that the net was measured with."""
        param = TransformationParameter(crop_size=self.crop_size, scale=self.scale, mean_file=str(mean))
        transformer = Transformer(param, TEST)
        transformer.output_shape(self.channels, self.height, self.width)
        return transformer


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose files were all found to be what model.json says.

    temperature: what calibrates the net's probabilities; 1 where it was never measured. training_shares: the share of
    each label in training; None where it is not known. class_prior: the power of these shares that probabilities are
    divided by unless a user says more. view_temperatures: by number, the temperatures of more views than one. hashes:
    sha256 by file, as in model.json.
    """

    path: Path
    name: str
    version: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    temperature: float
    training_shares: np.ndarray | None = field(default=None, compare=False)
    class_prior: float = 0.0
    view_temperatures: Mapping[int, float] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict, compare=False)

    def temperature_of(self, views: int) -> float:
        """What calibrates the mean of so many views. Raises ViewsError when it was not measured."""
        if views == 1 or self.temperature == 1:
            return self.temperature
        if views not in self.view_temperatures:
            raise ViewsError(
                f"{self.path / INDEX}: views {views} were not measured, so their probabilities would mean nothing; "
                f"evaluate with views {views} and export again, or read one view"
            )
        return self.view_temperatures[views]

    def ratios(self, prior: ClassPrior | None = None) -> np.ndarray | None:
        """What a class prior multiplies probabilities by, (classes,); None for the model's own prior.

        None where that is the training's. Raises ClassPriorError when the prior does not fit the labels, or is
        another than the training's and their shares are not known.
        """
        if prior is None:
            prior = self.class_prior
        if self.training_shares is None:
            if prior in ("training", 0):
                return None
            raise ClassPriorError(
                f"{self.path / INDEX}: no training_shares, which a class prior needs; export the model again with the "
                "metrics of evaluate"
            )
        return class_prior.ratios(prior, self.labels, self.training_shares)

    @property
    def onnx(self) -> Path:
        return self.path / ONNX

    def transformer(self) -> Transformer:
        return self.preprocessing.transformer(self.path / MEAN)

    def read_onnx(self) -> bytes:
        """The net, the very bytes whose hash is in model.json. Raises ModelError when they are others."""
        data = read_onnx(self.onnx)
        _check_hash(self.onnx, hashlib.sha256(data).hexdigest(), self.hashes[ONNX])
        return data


def read_training(path: Path) -> dict[str, Any]:
    """The record of the training in a model folder, as run.json has it; empty where it was exported without.

    Raises ModelError when model.json is damaged.
    """
    training = read_json(path / INDEX, REMEDY, ModelError).get("training") or {}
    if training and not is_run_record(training):
        raise ModelError(f"{path / INDEX}: training that is not what train writes; {REMEDY}")
    return training


def write_json(path: Path, value: Any) -> None:
    with atomic_file(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=2) + "\n")


def find(model: str | Path) -> Path:
    """The folder of a model: a path, or the name of one that ships, of a folder under weights/ or of a run.

    Raises ModelError naming the models that there are when there is none of that name.
    """
    if isinstance(model, Path) or len(Path(model).parts) != 1:
        return Path(model)
    for folder in (MODELS / SHIPPED.get(model, model), RUNS / model / "model", Path(model)):
        if (folder / INDEX).is_file():
            return folder
    shipped = {path.parent.name for path in MODELS.glob(f"*/{INDEX}")}
    runs = {path.parent.parent.name for path in RUNS.glob(f"*/model/{INDEX}")}
    names = ", ".join([*SHIPPED, *sorted((shipped | runs) - set(SHIPPED))])
    raise ModelError(f"model {model}: no model of that name; {names} or a model folder was expected")


def read(path: Path) -> ModelFolder:
    """Read a model folder and check every file's hash.

    Raises ModelError naming the file that is missing, is not listed or is another than the one listed in model.json, or
    the value that is out of its range.
    """
    if not (path / INDEX).is_file():
        raise ModelError(f"{path}: no {INDEX} inside, where a model folder was expected; make one with export")
    index = read_json(path / INDEX, REMEDY, ModelError)
    hashes = index.get("sha256")
    if not isinstance(hashes, dict):
        raise ModelError(f"{path / INDEX}: no table sha256; {REMEDY}")
    for key in ("name", "version"):
        if not is_name(index.get(key)):
            raise ModelError(
                f"{path / INDEX}: {key} {shorten(repr(index.get(key)))} where a text of 1 to {MAX_NAME} printable "
                f"characters was expected; {REMEDY}"
            )
    _check_files(path, hashes)
    temperatures = _temperatures(index, path / INDEX)
    preprocessing = _read_preprocessing(path / PREPROCESSING)
    preprocessing.transformer(path / MEAN)
    labels = manifest.read_labels(path / LABELS)
    shares = read_training_shares(index, labels, path / INDEX, REMEDY)
    power = _given(index, "class_prior", 0.0)
    if not _is_number(power) or not 0 <= power <= 1:
        raise ModelError(
            f"{path / INDEX}: class_prior {shorten(repr(power))}, not a number from 0 to 1; export the model again"
        )
    return ModelFolder(
        path,
        index["name"],
        index["version"],
        labels,
        preprocessing,
        temperatures.pop(1),
        shares,
        power,
        temperatures,
        hashes,
    )


def check_labels(folder: ModelFolder, labels: Path) -> None:
    """Raise ModelError unless a model has the labels of a labels.txt, in its order."""
    names = manifest.read_labels(labels)
    if folder.labels != names:
        raise ModelError(
            f"{folder.path}: labels {', '.join(folder.labels)} where {labels} has {', '.join(names)}; give models of "
            "these labels"
        )


def faces_seen(folder: ModelFolder) -> set[str]:
    """Of FACES, those that a model has learned from.

    model.json of an ensemble says it. Another model's preprocessing tells what it is served; that it was trained with
    train_on=both shows in the databases that the record of its training names. Raises ModelError for what is no record.
    """
    seen = {folder.preprocessing.faces}
    index = read_json(folder.path / INDEX, REMEDY, ModelError)
    if SEEN in index:
        if index[SEEN] not in map(sorted, TRAIN_ON.values()) or folder.preprocessing.faces not in index[SEEN]:
            raise ModelError(
                f"{folder.path / INDEX}: {SEEN} {index[SEEN]} where some of {', '.join(FACES)} were expected, among "
                f"them {folder.preprocessing.faces}; {REMEDY}"
            )
        return set(index[SEEN])
    for file in map(Path, read_training(folder.path).get("sha256", ())):
        if file.parent.name == "train_lmdb" and seen == {"aligned"}:
            seen |= TRAIN_ON.get(file.parent.parent.name.partition("_")[0], set())
    return seen


def check_faces(folder: ModelFolder, train_on: str) -> None:
    """Raise ModelError unless a model has learned from all kinds of faces that a run with this `train_on` reads."""
    seen = faces_seen(folder)
    for kind in sorted(TRAIN_ON[train_on] - seen):
        raise ModelError(
            f"{folder.path}: learned from {' and '.join(KINDS[kind] for kind in sorted(seen))}, where this run reads "
            f"{KINDS[kind]}, of which it knows nothing; take a model that was trained with train_on={kind} or "
            "train_on=both, or set train_on as that model's run did"
        )


def _check_files(path: Path, hashes: Mapping[str, str]) -> None:
    """Raise ModelError unless a folder holds the files that it lists and no others, but hidden ones."""
    for name in NEEDED:
        if name not in hashes:
            raise ModelError(f"{path / INDEX}: no hash of {name}; export the model again")
    for name, expected in hashes.items():
        if name not in FILES:
            raise ModelError(
                f"{path / INDEX}: lists {shorten(repr(name))}, which is no file of a model; export the model again"
            )
        if not (path / name).is_file():
            raise ModelError(f"{path / name}: missing, where {INDEX} lists it; fetch or export the model again")
        _check_hash(path / name, sha256(path / name), expected)
    for name in sorted(entry.name for entry in path.iterdir()):
        if name not in hashes and name != INDEX and not name.startswith("."):
            raise ModelError(f"{path / name}: {INDEX} does not list it, so it may be anything; move it away")


def _check_hash(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ModelError(
            f"{path}: its sha256 is not the one in {INDEX}; it was changed or damaged: fetch or export the model again"
        )


def _given(index: dict[str, Any], key: str, default: Any) -> Any:
    """What model.json says, or the default where it says nothing; 0 and an empty list are something."""
    value = index.get(key)
    return default if value is None else value


def is_name(value: Any) -> bool:
    """Whether a model may have it for its name or version, which stand on pages, in cards and in answers."""
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= MAX_NAME


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _temperatures(index: dict[str, Any], path: Path) -> dict[int, float]:
    """model.json's temperatures by the number of views, 1 where one view has none. Raises ModelError for others."""
    of_views = _given(index, "view_temperatures", {})
    if not isinstance(of_views, dict):
        raise ModelError(f"{path}: view_temperatures that are no table; export the model again")
    lowest, highest = TEMPERATURES
    temperatures = {"1": _given(index, "temperature", 1.0), **of_views}
    for temperature in temperatures.values():
        if not _is_number(temperature) or not lowest <= temperature <= highest:
            raise ModelError(
                f"{path}: temperature {shorten(repr(temperature))}, not a number from {lowest} to {highest}; "
                "export the model again"
            )
    return {count: temperatures[str(count)] for count in COUNTS if str(count) in temperatures}


def _read_preprocessing(path: Path) -> Preprocessing:
    """Raises ModelError naming the field that is missing, unknown or out of its range."""
    found = read_json(path, REMEDY, ModelError)
    names = [each.name for each in fields(Preprocessing)]
    for wrong, what in ((set(found) - set(names), "unknown"), (set(names) - set(found), "missing")):
        if wrong:
            raise ModelError(f"{path}: {shorten(repr(min(wrong)))} is {what}; export the model again")
    sides = [found[name] for name in ("height", "width")]
    right = {
        "channels": (type(found["channels"]) is int and found["channels"] in CHANNELS, " or ".join(map(str, CHANNELS))),
        **{
            name: (type(found[name]) is int and 1 <= found[name] <= MAX_SIDE, f"a whole number from 1 to {MAX_SIDE}")
            for name in ("height", "width")
        },
        "crop_size": (
            type(found["crop_size"]) is int
            and found["crop_size"] >= 0
            and not any(isinstance(side, int) and side < found["crop_size"] for side in sides),
            "a whole number from 0 to the smaller side",
        ),
        "scale": (
            type(found["scale"]) in (int, float) and SCALES[0] <= found["scale"] <= SCALES[1],
            f"a number from {SCALES[0]:g} to {SCALES[1]:g}",
        ),
        "faces": (found["faces"] in FACES, " or ".join(FACES)),
    }
    for name, (fits, expected) in right.items():
        if not fits:
            given = shorten(repr(found[name]))
            raise ModelError(f"{path}: {name} {given} where {expected} was expected; export the model again")
    return Preprocessing(**found)


def read_training_shares(
    record: Mapping[str, Any], labels: tuple[str, ...], path: Path, remedy: str
) -> np.ndarray | None:
    """The training shares (classes,) of model.json or metrics.json at `path`, None where it has none.

    Raises ModelError when they are of other labels, are not above 0 or do not add up to 1; it ends in the remedy.
    """
    found = record.get("training_shares")
    if found is None:
        return None
    if not isinstance(found, dict) or list(found) != list(labels):
        raise ModelError(f"{path}: training_shares of other labels than {', '.join(labels)}; {remedy}")
    values = list(found.values())
    if not all(isinstance(value, float) and 0 < value <= 1 for value in values) or abs(sum(values) - 1) > 1e-6:
        raise ModelError(f"{path}: training_shares that are no shares; {remedy}")
    return np.array(values)


def _is_batch(value: "onnxruntime.NodeArg", sizes: Sequence[int | None]) -> bool:
    """Whether a net's input or output is float (N, *sizes) for any N. None, and a size that the net only names: any."""
    batch, *found = value.shape or [0]
    return (
        value.type == "tensor(float)"
        and not isinstance(batch, int)
        and len(found) == len(sizes)
        and all(
            None in (size, made) or isinstance(size, str) or size == made
            for size, made in zip(found, sizes, strict=True)
        )
    )


def _described(values: "Sequence[onnxruntime.NodeArg]") -> str:
    return " and ".join(f"{value.name} of shape {tuple(value.shape)}, {value.type}" for value in values) or "nothing"


class Classifier:
    """A model folder's net on ONNX Runtime; several threads may call it at once.

    threads: cores that one call uses. class_prior: None for the model's own. views: of each face (views.COUNTS), whose
    probabilities are averaged. providers: what runs the net (base.onnx_runtime). Raises ModelError when the folder's
    files contradict one another, ClassPriorError when the prior does not fit the model, ViewsError when it has no such
    views, or was not calibrated for them, InputError for a provider that is not there.
    """

    def __init__(
        self,
        folder: ModelFolder,
        threads: int = 1,
        *,
        class_prior: ClassPrior | None = None,
        views: int = 1,
        providers: Sequence[str] = CPU,
    ) -> None:
        self.labels = folder.labels
        self._ratios = folder.ratios(class_prior)
        self.preprocessing = folder.preprocessing
        self._transform = folder.transformer()
        check(views, self._transform)
        self._views = views
        self._temperature = folder.temperature_of(views)
        self._session = self.session(folder.read_onnx(), threads, name=str(folder.onnx), providers=providers)
        self._folder = folder
        self._input, output, *more = self._values()
        self._maps = [value.name for value in more if value.name == CLASS_MAPS]
        self._output = output.name
        self._providers = providers
        self._with_features: tuple[str, onnxruntime.InferenceSession] | None = None
        self._net: Net | None = None
        self._lock = Lock()

    def _values(self) -> "list[onnxruntime.NodeArg]":
        """The net's one input, and its outputs. Raises ModelError unless they are what the folder's files say."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        given = self.preprocessing
        shape = self._transform.output_shape(given.channels, given.height, given.width)
        classes = len(self.labels)
        # A net that takes images of any size, as global pooling makes it, has names where others have sizes.
        if len(inputs) != 1 or not _is_batch(inputs[0], shape):
            raise ModelError(
                f"{self._folder.onnx}: takes {_described(inputs)} where {PREPROCESSING} makes float of shape "
                f"{('N', *shape)}; export the model again"
            )
        wanted: list[tuple[onnxruntime.NodeArg, list[int | None]]] = [(outputs[0], [None])]
        wanted += [(value, [classes, None, None]) for value in outputs[1:] if value.name == CLASS_MAPS]
        for value, sizes in wanted:
            if not _is_batch(value, sizes):
                expected = ("N", classes, "h", "w")[: len(sizes) + 1]
                raise ModelError(
                    f"{self._folder.onnx}: gives {_described([value])} where float of shape {expected} was expected; "
                    "export the model again"
                )
        if outputs[0].shape[1] != classes:
            raise ModelError(
                f"{self._folder.onnx}: gives {outputs[0].shape[1]} probabilities where {LABELS} names {classes} "
                "classes; export the model again"
            )
        return [*inputs, *outputs]

    @classmethod
    def as_trained(cls, folder: ModelFolder, threads: int = 1) -> "Classifier":
        """One whose probabilities are the net's own: not calibrated, and with the training's class prior."""
        return cls(replace(folder, temperature=1.0), threads, class_prior="training")

    @staticmethod
    def session(
        model: bytes, threads: int = 1, *, name: str = ONNX, providers: Sequence[str] = CPU
    ) -> "onnxruntime.InferenceSession":
        """Open an ONNX model, by its file's bytes, as it is served. Raises ModelError, calling it `name`."""
        return open_session(model, name, providers=providers, threads=threads, error=ModelError)

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Probabilities (N, classes) for faces (N, C, H, W) uint8 of the size that `preprocessing` tells.

        They are calibrated, and have the class prior.
        """
        probabilities = read_views(self._run, faces, self._transform, self._views)
        return calibrate(probabilities, self._temperature, self._ratios)

    def _run(self, inputs: np.ndarray) -> np.ndarray:
        return np.asarray(self._session.run([self._output], {self._input.name: inputs})[0])

    @property
    def has_class_maps(self) -> bool:
        """Whether `explain` only runs the net once more, and not the engine."""
        return bool(self._maps)

    def features(self, faces: np.ndarray) -> np.ndarray:
        """What the net's last fully connected layer is given: a vector a face, (N, features) for (N, C, H, W) uint8.

        Faces whose vectors are near one another look alike to the net. Raises ModelError when the net has no such
        layer, or several, as an ensemble.
        """
        with self._lock:
            if self._with_features is None:
                model = self._folder.read_onnx()
                name = find_features(model, self._output)
                if name is None:
                    raise ModelError(
                        f"{self._folder.onnx}: does not end in one fully connected layer, so it has no feature vector; "
                        "take another model, or a member of the ensemble"
                    )
                session = self.session(with_output(model, name), name=str(self._folder.onnx), providers=self._providers)
                self._with_features = name, session
            name, session = self._with_features
        (found,) = session.run([name], {self._input.name: self._transform(faces)})
        return np.asarray(found).reshape(len(faces), -1)

    def explain(self, faces: np.ndarray) -> np.ndarray:
        """How much each place of a face speaks for each label: maps (N, classes, h, w) for faces (N, C, H, W) uint8.

        The maps cover the part of the face that the net sees. Of a net that ends in global average pooling they are
        exact: the mean of a label's map is its score, less the mean score of all labels. Of others they are Grad-CAM's,
        which the engine computes. Negative values speak against the label.

        Raises:
            ModelError: the ONNX file has no maps, and the engine cannot run the net: the folder has no weights, or
                torch is not installed.
        """
        inputs = self._transform(faces)
        if not self._maps:
            return self._grad_cam(inputs)
        (maps,) = self._session.run(self._maps, {self._input.name: inputs})
        return np.asarray(maps - maps.mean(axis=1, keepdims=True))

    def _grad_cam(self, inputs: np.ndarray) -> np.ndarray:
        weights = self._folder.path / WEIGHTS
        if not weights.exists():
            raise ModelError(
                f"{self._folder.path}: its net has no class maps, and without {WEIGHTS} the engine cannot make them; "
                "export a float32 model, or a net that ends in global average pooling"
            )
        try:
            from pipeline.caffe.grad_cam import grad_cam
            from pipeline.caffe.net import build_net
        except ModuleNotFoundError as error:
            raise ModelError(
                f"{self._folder.path}: its net has no class maps, and the engine that could make them needs the "
                f"package {error.name}; pip install 'caffe-expressions[engine]'"
            ) from None
        with self._lock:
            if self._net is None:
                self._net = build_net(self._folder.path / DEPLOY, TEST)
                self._net.copy_from(weights)
            return grad_cam(self._net, inputs)
