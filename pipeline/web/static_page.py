"""The static page: one folder with the page, the nets, and the runtime that runs them in a browser."""

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.atomic import atomic_folder
from pipeline.base.errors import InputError
from pipeline.base.text_files import read_json, read_text
from pipeline.classifier import model_folder
from pipeline.classifier.hub_card import without_front_matter
from pipeline.drawing import emoji
from pipeline.drawing.palette import colours
from pipeline.faces import alignment, mtcnn, quality, tracking
from pipeline.page import page_files
from pipeline.predictor import FORGET, MIN_FACE, MIN_MOVING_FACE, SMOOTHING, Predictor

SCRIPTS = Path(__file__).parent / "page"
RUNTIME = Path(__file__).parent / "runtime"  # of the npm package; npm ci puts it there
PACKAGE = "onnxruntime-web"
# Of the package's dist/, by their names in the page's folder.
SCRIPT, BINARY = "runtime/ort.js", "runtime/ort.wasm"
RUNTIME_FILES = {SCRIPT: "ort.wasm.bundle.min.mjs", BINARY: "ort-wasm-simd-threaded.wasm"}
SETTINGS = "reader.json"  # what the scripts read
MAX_FACES = 100  # of a picture: the largest ones
MAX_PIXELS = 4_000_000  # that are searched for faces; a larger picture is scaled down
# Only what is in the folder may be loaded, and WebAssembly may be compiled.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
WORDS = {
    "head": f'<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">',
    "card": "card.html",
    "links": "",
    "promise": "Nothing is uploaded: pictures are read in your browser and forgotten.",
    "without_scripts": "It reads pictures in your browser.",
}


class RuntimeMissingError(InputError):
    """ONNX Runtime Web is not there, or is another version than the one that was tested."""


def write_static_page(predictor: Predictor, output: Path, *, runtime: Path = RUNTIME) -> int:
    """Write the folder `output`, replaced as a whole, and only if nothing but such a page is in it.

    Args:
        predictor: whose model the page reads with; pictures and moving pictures alike.
        output: the folder.
        runtime: where `npm ci` was run.

    Returns:
        The folder's bytes.

    Raises:
        RuntimeMissingError: `npm ci` was not run there, or for another version.
        InputError: `output` holds other files.
    """
    runtime_dist = _find_runtime(runtime)
    folder = predictor.folder
    files = {**page_files(WORDS), **{path.name: path.read_bytes() for path in sorted(SCRIPTS.glob("*.js"))}}
    files |= {f"emoji/{path.name}": path.read_bytes() for path in sorted(emoji.FOLDER.glob("*.svg"))}
    card = read_text(folder.path / model_folder.CARD, model_folder.REMEDY)
    files["model-card.md"] = without_front_matter(card).encode()
    nets = {f"models/{name}.onnx": (mtcnn.MODELS / f"{name}.onnx").read_bytes() for name in ("pnet", "rnet", "onet")}
    nets |= {"models/model.onnx": folder.read_onnx(), "models/mean.bin": _seen_mean(predictor).tobytes()}
    files |= nets | {"models/LICENSE-mtcnn": (mtcnn.MODELS / "LICENSE").read_bytes()}
    files |= {name: (runtime_dist / source).read_bytes() for name, source in RUNTIME_FILES.items()}
    settings = _settings(predictor)
    settings["files"] = {Path(path).stem: _described(path, content) for path, content in nets.items()}
    settings["runtime"] = {"script": SCRIPT, "binary": _described(BINARY, files[BINARY])}
    files[SETTINGS] = json.dumps(settings, indent=1).encode()
    with atomic_folder(output, own={Path(name).parts[0] for name in files}) as written:
        for name, content in files.items():
            path = written / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    return sum(map(len, files.values()))


def _find_runtime(folder: Path) -> Path:
    """The package's dist/. Raises RuntimeMissingError naming the command that fetches it."""
    wanted = read_json(RUNTIME / "package.json", "install the project again")["dependencies"][PACKAGE]
    package = folder / "node_modules" / PACKAGE
    remedy = f"fetch it with: npm ci --ignore-scripts --prefix {folder}"
    if folder != RUNTIME:
        remedy += f" (package.json and package-lock.json are in {RUNTIME})"
    if not (package / "package.json").is_file():
        raise RuntimeMissingError(f"{package}: no such package, where {PACKAGE} {wanted} was expected; {remedy}")
    found = read_json(package / "package.json", remedy).get("version")
    if found != wanted:
        raise RuntimeMissingError(f"{package}: version {found} where {wanted} was expected; {remedy}")
    for source in RUNTIME_FILES.values():
        if not (package / "dist" / source).is_file():
            raise RuntimeMissingError(f"{package / 'dist' / source}: no such file; {remedy}")
    return package / "dist"


def _described(path: str, content: bytes) -> dict[str, str]:
    """A file as the page's fetch() takes it, with the hash that the browser compares."""
    return {"path": path, "integrity": f"sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}"}


def _seen_mean(predictor: Predictor) -> np.ndarray:
    """The mean image where the net sees the face, (side, side), little-endian float32."""
    side, low = _seen_side(predictor), (alignment.SIZE - _seen_side(predictor)) // 2
    mean = predictor.folder.transformer().mean
    assert mean is not None  # a model folder has a mean file
    return np.ascontiguousarray(mean[0, low : low + side, low : low + side], dtype="<f4")


def _seen_side(predictor: Predictor) -> int:
    return predictor.folder.preprocessing.crop_size or alignment.SIZE


def _settings(predictor: Predictor) -> dict[str, Any]:
    """What the scripts go by: the model's figures, and the constants that Python reads with."""
    folder = predictor.folder
    ratios = folder.ratios()
    colour = colours(folder.labels)
    return {
        "about": {
            "name": folder.name,
            "version": folder.version,
            "expressions": [
                {"label": label, "colour": colour[label], "emoji": f"emoji/{emoji.name_of(label)}.svg"}
                for label in folder.labels
            ],
            "unknown": f"emoji/{emoji.UNKNOWN}.svg",
            "explain": predictor.classifier.has_class_maps,
        },
        "model": {
            "labels": folder.labels,
            "side": _seen_side(predictor),
            "scale": folder.preprocessing.scale,
            "aligned": folder.preprocessing.faces == "aligned",
            "temperature": folder.temperature,
            "ratios": None if ratios is None else ratios.tolist(),
            "uncertain": predictor.uncertain,
            "class_maps": model_folder.CLASS_MAPS if predictor.classifier.has_class_maps else None,
        },
        "alignment": {"size": alignment.SIZE, "template": alignment.TEMPLATE.tolist()},
        "mtcnn": {
            "window": mtcnn.WINDOW,
            "stride": mtcnn.STRIDE,
            "factor": mtcnn.PYRAMID_FACTOR,
            "p_score": mtcnn.P_SCORE,
            "r_score": mtcnn.R_SCORE,
            "o_score": mtcnn.O_SCORE,
            "p_scale_overlap": mtcnn.P_SCALE_OVERLAP,
            "overlap": mtcnn.OVERLAP,
            "batch": mtcnn.MAX_BATCH_CROPS,
            "band_pixels": mtcnn.MAX_BAND_PIXELS,
            "band_rows": mtcnn.MIN_BAND_ROWS,
            "level_proposals": mtcnn.LEVEL_PROPOSALS,
            "r_proposals": mtcnn.R_PROPOSALS,
            "o_proposals": mtcnn.O_PROPOSALS,
            "least_proposals": mtcnn.LEAST_PROPOSALS,
            "max_faces": MAX_FACES,
        },
        "quality": {"tiny": quality.TINY, "turned": quality.TURNED, "rolled": quality.ROLLED},
        "tracking": {
            "every": tracking.EVERY,
            "away": tracking.AWAY,
            "followed": tracking.FOLLOWED,
            "max_lost": tracking.MAX_LOST_FRAMES,
            "min_score": tracking.MIN_SCORE,
            "match_iou": tracking.MATCH_IOU,
            "reappear_iou": tracking.REAPPEAR_IOU,
            "one_face": tracking.ONE_FACE,
            "smoothing": SMOOTHING,
            "forget": FORGET,
        },
        "min_face": {"picture": MIN_FACE, "moving": MIN_MOVING_FACE},
        "max_pixels": MAX_PIXELS,
    }
