"""Layers of SSD (Liu et al., 2016), which detects objects: prior boxes, and detections. Caffe does not have them."""

import math
from collections.abc import Iterator

import numpy as np
import torch

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register
from pipeline.caffe.proto.caffe_pb2 import PriorBoxParameter

MAX_SIZE = 2**24  # of a prior box or an image, in pixels: up to here float32 has every whole number
MAX_LISTED = 100  # sizes or aspect ratios of one PriorBox
SAME_RATIO = 1e-6  # SSD's
MAX_CANDIDATES = 2**16  # of one class in one item: each is compared with those that are kept
ADAPTS_ABOVE = 0.5  # eta lowers only an nms_threshold above it


@register("PriorBox")
class PriorBox(Layer):
    """Boxes of each size and aspect ratio around every place of a feature map, the same for the whole batch.

    bottoms (N, C, H, W), the map, and (N, C, H', W'), the image -> top (1, 2, H W P 4): xmin, ymin, xmax and ymax of P
    boxes a place as shares of the image, and the variances of the four. For each min_size a place has a square of that
    size; with max_size, a square of sqrt(min_size max_size); and for every aspect ratio r but 1 a box of
    min_size sqrt(r) by min_size / sqrt(r), with flip followed by that for 1 / r. Fractions of a pixel in min_size and
    max_size are dropped (weiliu89/caffe, prior_box_layer.cpp). The layer reads only the shapes of its bottoms.
    """

    bottoms = (2, 2)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.prior_box_param
        if any(len(shape) != 4 for shape in bottom):
            raise self.error(f"bottoms of shapes {bottom[0]} and {bottom[1]} where (N, C, H, W) were expected")
        for name in ("min_size", "max_size", "aspect_ratio", "variance"):
            self.check(name, list(getattr(param, name)))
        if not param.min_size:
            raise self.error("no min_size, where at least one was expected")
        if param.max_size and (
            len(param.max_size) != len(param.min_size)
            or any(low >= high for low, high in zip(param.min_size, param.max_size, strict=True))
        ):
            raise self.error(
                f"max_size {list(param.max_size)} where a larger one for each min_size "
                f"{list(param.min_size)} was expected"
            )
        if len(param.variance) not in (0, 1, 4):
            raise self.error(f"{len(param.variance)} values of variance where 1 or 4 were expected")
        if not math.isfinite(param.offset):
            raise self.error(f"offset {param.offset:g} where a number was expected")
        self.image = self.pair("img_size", "img_h", "img_w")
        self.step = self.pair("step", "step_h", "step_w")
        self.ratios = self.aspect_ratios()
        priors = len(param.min_size) * (1 + len(self.ratios)) + len(param.max_size)
        return [(1, 2, bottom[0][2] * bottom[0][3] * priors * 4)]

    def check(self, name: str, values: list[float]) -> None:
        """Raise LayerError unless the values of a field are possible and at most MAX_LISTED."""
        least = 1 if name.endswith("size") else 0
        if len(values) > MAX_LISTED:
            raise self.error(f"{len(values)} values of {name} where at most {MAX_LISTED} were expected")
        for value in values:
            if not (least <= value <= MAX_SIZE and value > 0):
                raise self.error(
                    f"{name} {value:g} where a number from 1 to {MAX_SIZE} was expected"
                    if least
                    else f"{name} {value:g} where a number above 0 and of at most {MAX_SIZE} was expected"
                )

    def pair(self, both: str, high: str, wide: str) -> tuple[float, float] | None:
        """Height and width from the field `both`, or from `high` and `wide`; None if none of them is set."""
        param = self.param.prior_box_param
        names = [name for name in (both, high, wide) if param.HasField(name)]
        if not names:
            return None
        if names not in ([both], [high, wide]):
            raise self.error(f"{' beside '.join(names)} where {both}, or {high} and {wide}, was expected")
        for name in names:
            self.check(name, [getattr(param, name)])
        return getattr(param, names[0]), getattr(param, names[-1])

    def aspect_ratios(self) -> list[float]:
        """The ratios other than 1, in their order and each once."""
        ratios = [1.0]
        for ratio in self.param.prior_box_param.aspect_ratio:
            if all(abs(ratio - other) >= SAME_RATIO for other in ratios):
                ratios += [ratio, 1 / ratio] if self.param.prior_box_param.flip else [ratio]
        return ratios[1:]

    def sizes(self) -> Iterator[tuple[float, float]]:
        """Width and height in pixels of each box at a place."""
        param = self.param.prior_box_param
        for index, size in enumerate(map(int, param.min_size)):
            yield size, size
            if param.max_size:
                side = math.sqrt(size * int(param.max_size[index]))
                yield side, side
            for ratio in self.ratios:
                yield size * math.sqrt(ratio), size / math.sqrt(ratio)

    def boxes(self, places: Shape, image: Shape) -> np.ndarray:
        """The top, for a map and an image of (height, width)."""
        param = self.param.prior_box_param
        height, width = self.image or image
        step_h, step_w = self.step or (height / places[0], width / places[1])
        y = (np.arange(places[0]) + param.offset)[:, None, None] * step_h
        x = (np.arange(places[1]) + param.offset)[None, :, None] * step_w
        wide, high = np.array(list(self.sizes())).T / 2
        corners = np.broadcast_arrays((x - wide) / width, (y - high) / height, (x + wide) / width, (y + high) / height)
        top = np.empty((1, 2, 4 * corners[0].size), np.float32)
        top[0, 0] = np.stack(corners, -1).reshape(-1)
        if param.clip:
            top[0, 0].clip(0, 1, out=top[0, 0])
        variance = list(param.variance) or [0.1]
        top[0, 1].reshape(-1, 4)[:] = variance
        return top

    def forward(self, bottom: Tensors) -> Tensors:
        places, image = (tuple(value.shape[2:]) for value in bottom)
        return [torch.from_numpy(self.boxes(places, image)).to(bottom[0].device)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        places, image = (graph.shapes[value][2:] for value in bottom)
        if -1 in places or (-1 in image and self.image is None):
            raise self.error("PriorBox has no ONNX form here for images of any size")
        return [graph.constant(self.boxes(places, image))]


@register("DetectionOutput")
class DetectionOutput(Layer):
    """SSD's detections: decodes boxes, drops those of low confidence, and suppresses those that overlap a better one.

    bottoms (N, P L 4), offsets of L boxes from each of P prior boxes, L being 1 with share_location and else C, the
    number of classes; (N, P C), confidences; (1, 2, P 4), the top of a PriorBox; optionally an image, which is not
    used -> top (1, 1, K, 7). A row is the item's number, the class, its confidence, xmin, ymin, xmax, ymax; rows are
    sorted by item, class and falling confidence. K is 1 until the net runs. If nothing is detected in a batch, K is N,
    and each item's row has its number and -1 six times.

    With `clip`, which OpenCV added, decoded boxes are cut to the image. Of each class the top_k most confident boxes
    above confidence_threshold are candidates. In the order of their confidence a candidate is kept if its intersection
    over union with every box kept so far is at most nms_threshold, which is multiplied by eta at each kept box while it
    is above 0.5. Then the keep_top_k most confident boxes of all classes remain. No gradient passes (weiliu89/caffe,
    detection_output_layer.cpp and util/bbox_util.cpp).
    """

    bottoms = (3, 4)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        self.check()
        param = self.param.detection_output_param
        shapes = f"bottoms of shapes {', '.join(map(str, bottom))}"
        if any(len(shape) < 2 for shape in bottom[:2]) or len(bottom[2]) != 3 or bottom[2][:2] != (1, 2):
            raise self.error(f"{shapes} where (N, P L 4), (N, P C) and (1, 2, P 4) were expected")
        priors = bottom[2][2] // 4
        self.locations = 1 if param.share_location else param.num_classes
        wanted = [(bottom[0][0], priors * self.locations * 4), (bottom[0][0], priors * param.num_classes)]
        if [(shape[0], math.prod(shape[1:])) for shape in bottom[:2]] != wanted or bottom[2][2] % 4:
            raise self.error(
                f"{shapes} where {priors} prior boxes, {self.locations} location(s) of each and "
                f"{param.num_classes} classes need {wanted[0]} and {wanted[1]}"
            )
        return [(1, 1, 1, 7)]

    def check(self) -> None:
        """Raise LayerError unless the parameters are possible and this engine supports them."""
        param, nms = self.param.detection_output_param, self.param.detection_output_param.nms_param
        if not 1 <= param.num_classes <= MAX_SIZE:
            raise self.error(f"num_classes {param.num_classes} where a number from 1 to {MAX_SIZE} was expected")
        if not -1 <= param.background_label_id < param.num_classes:
            raise self.error(
                f"background_label_id {param.background_label_id} where a class below num_classes "
                f"{param.num_classes}, or -1 for none, was expected"
            )
        if not nms.nms_threshold >= 0 or not 0 < nms.eta <= 1:
            raise self.error(
                f"nms_threshold {nms.nms_threshold:g}, eta {nms.eta:g} where at least 0, and above 0 and "
                "at most 1, were expected"
            )
        for name, number in (("keep_top_k", param.keep_top_k), ("top_k", nms.top_k)):
            if number < -1:
                raise self.error(f"{name} {number} where a number from 0 on, or -1 for all, was expected")
        if math.isnan(param.confidence_threshold):
            raise self.error("confidence_threshold nan where a number was expected")
        for name, value in (
            ("save_output_param.output_directory", param.save_output_param.output_directory),
            ("visualize", param.visualize),
        ):
            if value:
                raise self.error(
                    f"{name} is set, but this engine neither writes nor shows detections: take them from "
                    "the top, and leave it out"
                )

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.detection_output_param
        offsets, confidences, priors = (value.detach().float().cpu().numpy() for value in bottom[:3])
        count = priors.shape[2] // 4
        offsets = offsets.reshape(len(offsets), count, self.locations, 4)
        confidences = confidences.reshape(len(confidences), count, param.num_classes)
        with np.errstate(over="ignore", invalid="ignore"):  # what offsets and confidences are is up to the net
            boxes = self.decode(offsets, *priors.reshape(2, count, 1, 4))
            boxes = boxes.clip(0, 1) if param.clip else boxes
            found = [self.found(boxes[item], confidences[item]) for item in range(len(boxes))]
        rows = [np.column_stack((np.full(len(those), item), those)) for item, those in enumerate(found)]
        top = np.concatenate([np.zeros((0, 7)), *rows])
        if not len(top):
            top = np.full((len(found), 7), -1.0)
            top[:, 0] = np.arange(len(found))
        made = torch.from_numpy(top.astype(np.float32)[None, None]).to(bottom[0].device)
        return [self.without_gradient(made, *bottom[:2])]

    def decode(self, offsets: np.ndarray, prior: np.ndarray, variance: np.ndarray) -> np.ndarray:
        """Boxes (N, P, L, 4) from offsets of that shape to `prior` (P, 1, 4)."""
        param = self.param.detection_output_param
        if not param.variance_encoded_in_target:
            offsets = offsets * variance
        if param.code_type == PriorBoxParameter.CORNER:
            return prior + offsets
        size = prior[..., 2:] - prior[..., :2]
        if not (size > 0).all():
            code = PriorBoxParameter.CodeType.Name(param.code_type)
            raise self.error(f"a prior box without width or height, where code_type {code} needs both")
        if param.code_type == PriorBoxParameter.CORNER_SIZE:
            return prior + offsets * np.concatenate((size, size), -1)
        centre = offsets[..., :2] * size + (prior[..., :2] + prior[..., 2:]) / 2
        half = np.exp(offsets[..., 2:]) * size / 2
        return np.concatenate((centre - half, centre + half), -1)

    def found(self, boxes: np.ndarray, confidences: np.ndarray) -> np.ndarray:
        """Rows (K, 6) of class, confidence and box in one item's boxes (P, L, 4) with confidences (P, C)."""
        param = self.param.detection_output_param
        rows = [np.zeros((0, 6), np.float32)]
        for label in range(param.num_classes):
            if label != param.background_label_id:
                own = boxes[:, 0 if param.share_location else label]
                kept = self.suppressed(own, confidences[:, label], label)
                rows.append(np.column_stack((np.full(len(kept), label), confidences[kept, label], own[kept])))
        found = np.concatenate(rows)
        if -1 < param.keep_top_k < len(found):
            best = np.argsort(-found[:, 1], kind="stable")[: param.keep_top_k]
            found = found[np.sort(best)]
        return found

    def suppressed(self, boxes: np.ndarray, confidences: np.ndarray, label: int) -> list[int]:
        """The places of the boxes (P, 4) of a class that are kept, sorted by falling confidence (P,)."""
        param = self.param.detection_output_param
        threshold = param.confidence_threshold if param.HasField("confidence_threshold") else -math.inf
        (able,) = np.nonzero(confidences > np.float32(threshold))
        order = able[np.argsort(-confidences[able], kind="stable")]
        if param.nms_param.HasField("top_k") and param.nms_param.top_k > -1:
            order = order[: param.nms_param.top_k]
        if len(order) > MAX_CANDIDATES:
            raise self.error(
                f"{len(order)} boxes of class {label} above confidence_threshold where at most "
                f"{MAX_CANDIDATES} were expected; give nms_param a top_k"
            )
        ordered = boxes[order]
        overlap = np.zeros(len(order), np.float32)  # the largest with a kept box; a box with nan is not kept
        kept, highest = [], param.nms_param.nms_threshold
        for place, number in enumerate(order):
            if overlap[place] <= highest:
                kept.append(int(number))
                rest = overlap[place + 1 :]
                np.maximum(rest, intersection_over_union(ordered[place], ordered[place + 1 :]), out=rest)
                if param.nms_param.eta < 1 and highest > ADAPTS_ABOVE:
                    highest *= param.nms_param.eta
        return kept


def intersection_over_union(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Of a box (4,) with each of `boxes` (N, 4): (N,), 0 where they do not meet."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.where((sides > 0).all(1), sides[:, 0] * sides[:, 1], 0)
    union = area(box[None]) + area(boxes) - common
    return np.divide(common, union, out=np.zeros_like(common), where=common != 0)


def area(boxes: np.ndarray) -> np.ndarray:
    """Of boxes (N, 4): (N,), 0 where xmax is below xmin or ymax below ymin."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.where((sides >= 0).all(1), sides[:, 0] * sides[:, 1], 0)
