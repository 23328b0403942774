"""Small nets drawn from a seed: layers in any order, branches that join again, blobs changed in place.

They are drawn so that Caffe's own gradients are right (docs/engine.md says where they are not), and more than rounding.
"""

import random
from dataclasses import dataclass, field

CLASSES = 7
IMAGE = (3, 9, 11)  # of harness.make_databases' images_lmdb
SOLVER_TYPES = ("SGD", "Nesterov")  # the others divide by gradients, and make updates of what is but rounding
LINEAR = {"Convolution", "Deconvolution", "Scale", "Concat", "Eltwise", "Reshape", "Flatten", "Dropout"}  # and means

Shape = tuple[int, int, int]  # (C, H, W)


@dataclass
class Blob:
    """A blob's name, its shape without the batch, and whether the layer that follows may work in place on it."""

    name: str
    shape: Shape
    in_place: bool = False
    centred: bool = False  # its mean is 0 but for rounding, and so is what comes of that


@dataclass
class RandomNet:
    """A net's layers. batch: its items. phase: TRAIN or TEST."""

    number: int
    batch: int
    phase: str
    layers: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> str:
        """The layers that its images and labels are given to."""
        dims = " ".join(f"dim: {size}" for size in (self.batch, *IMAGE))
        return (
            f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}\n'
            f'layer {{ name: "label" type: "Input" top: "label" '
            f"input_param {{ shape {{ dim: {self.batch} }} }} }}\n"
        )

    @property
    def case(self) -> str:
        """Its prototxt, with the numbers that go in."""
        labels = " ".join(map(str, range(CLASSES)))
        return (
            f"# label: choice {labels}\nforce_backward: true\nstate {{ phase: {self.phase} }}\n{self.inputs}"
            + "\n".join(self.layers)
        )

    @property
    def trained(self) -> str:
        """The net with images and labels from a database."""
        data = (
            f'layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ scale: 0.0078125 }} '
            f'data_param {{ source: "images_lmdb" backend: LMDB batch_size: {self.batch} }} }}\n'
        )
        return data + "\n".join(self.layers)

    @property
    def solver(self) -> str:
        """The solver of its training."""
        kind = SOLVER_TYPES[self.number % len(SOLVER_TYPES)]
        # Of one item Caffe's Scale keeps the last batch's gradient alone, where those of iter_size batches add up.
        batches = 1 if self.batch == 1 else 1 + self.number % 2
        return (
            f'net: "net{self.number}.train.prototxt" type: "{kind}" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 '
            f"weight_decay: 0.001 iter_size: {batches} max_iter: 3 display: 1 "
            f'snapshot_prefix: "net{self.number}" solver_mode: CPU random_seed: 1\n'
        )


class _Drawing:
    """A net as it is drawn."""

    def __init__(self, net: RandomNet, draw: random.Random) -> None:
        self.net = net
        self.draw = draw

    def layer(
        self,
        kind: str,
        bottoms: list[Blob],
        shape: Shape,
        param: str = "",
        *,
        in_place: bool = False,
        safe: bool = False,
    ) -> Blob:
        """Add a layer and return its top. `safe`: neither its own backward nor another's needs what it makes."""
        name = f"{kind.lower()}{len(self.net.layers)}"
        top = bottoms[0].name if in_place else name
        taken = " ".join(f'bottom: "{bottom.name}"' for bottom in bottoms)
        self.net.layers.append(f'layer {{ name: "{name}" type: "{kind}" {taken} top: "{top}" {param} }}')
        kept = kind in LINEAR and any(bottom.centred for bottom in bottoms)
        own = kind == "MVN" or (
            kind == "BatchNorm" and "true" not in param and (self.net.phase == "TRAIN" or "false" in param)
        )
        return Blob(top, shape, safe, centred=kept or own)

    def convolution(self, x: Blob, outputs: int | None = None) -> Blob:
        draw, (channels, height, width) = self.draw, x.shape
        size = draw.choice([size for size in (1, 2, 3) if size <= min(height, width) + 2])
        pad, stride = draw.randint(0, min(1, size - 1)), draw.randint(1, 2)
        if min(height, width) + 2 * pad < size:
            size, pad = 1, 0
        group = channels if channels in (2, 4) and draw.random() < 0.3 else 1
        outputs = outputs or draw.choice([2, 4, 6] if group < 4 else [4, 8])
        if outputs % group:
            group = 1
        top = (outputs, (height + 2 * pad - size) // stride + 1, (width + 2 * pad - size) // stride + 1)
        bias = "" if draw.random() < 0.7 else "bias_term: false"
        return self.layer(
            "Convolution",
            [x],
            top,
            f"convolution_param {{ num_output: {outputs} kernel_size: {size} "
            f"pad: {pad} stride: {stride} group: {group} {bias} }}",
            safe=True,
        )

    def deconvolution(self, x: Blob) -> Blob:
        outputs, size, stride = self.draw.choice([2, 4]), self.draw.randint(2, 3), self.draw.randint(1, 2)
        top = (outputs, stride * (x.shape[1] - 1) + size, stride * (x.shape[2] - 1) + size)
        return self.layer(
            "Deconvolution",
            [x],
            top,
            f"convolution_param {{ num_output: {outputs} kernel_size: {size} stride: {stride} }}",
            safe=True,
        )

    def pooling(self, x: Blob) -> Blob:
        channels, height, width = x.shape
        pool = "MAX" if x.centred else self.draw.choice(["MAX", "AVE"])
        if self.draw.random() < 0.15 or min(height, width) < 3:
            return self.layer(
                "Pooling", [x], (channels, 1, 1), f"pooling_param {{ pool: {pool} global_pooling: true }}", safe=True
            )
        size, stride = self.draw.randint(2, 3), self.draw.randint(1, 2)
        top = (channels, -(-(height - size) // stride) + 1, -(-(width - size) // stride) + 1)
        return self.layer(
            "Pooling", [x], top, f"pooling_param {{ pool: {pool} kernel_size: {size} stride: {stride} }}", safe=True
        )

    def normalised(self, x: Blob) -> Blob:
        if x.centred:
            return self.activation(x)
        kind = self.draw.choice(["BatchNorm", "BatchNorm", "LRN", "MVN"])
        if kind == "LRN":
            region = self.draw.choice(["ACROSS_CHANNELS", "WITHIN_CHANNEL"])
            return self.layer("LRN", [x], x.shape, f"lrn_param {{ local_size: 3 alpha: 0.5 norm_region: {region} }}")
        if kind == "MVN" and x.shape[1] * x.shape[2] > 4:
            return self.layer("MVN", [x], x.shape)
        # Of few values the variance is little but rounding.
        kept = self.draw.random() < 0.4 or self.net.batch * x.shape[1] * x.shape[2] < 8
        param = ""
        if kept or self.draw.random() < 0.5:
            param = f"batch_norm_param {{ use_global_stats: {str(kept).lower()} }}"
        if not param and self.net.phase == "TRAIN":
            param = "batch_norm_param { eps: 0.001 }"
        top = self.layer("BatchNorm", [x], x.shape, param, in_place=x.in_place and self.draw.random() < 0.5, safe=True)
        if self.draw.random() < 0.6:
            top = self.layer(
                "Scale", [top], x.shape, "scale_param { bias_term: true }", safe=True, in_place=self.draw.random() < 0.5
            )
        return top

    def activation(self, x: Blob) -> Blob:
        kind, param = self.draw.choice(
            [
                ("ReLU", ""),
                ("ReLU", ""),
                ("ReLU", "relu_param { negative_slope: 0.1 }"),
                ("PReLU", ""),
                ("Sigmoid", ""),
                ("TanH", ""),
                ("ELU", "elu_param { alpha: 0.5 }"),
                ("AbsVal", ""),
                ("BNLL", ""),
                ("Swish", ""),
                ("Power", "power_param { power: 2 scale: 0.5 shift: 0.3 }"),
                ("Exp", "exp_param { scale: 0.5 }"),
                ("Dropout", "dropout_param { dropout_ratio: 0 }"),
            ]
        )
        in_place = x.in_place and kind in ("ReLU", "Sigmoid", "TanH", "Dropout") and "slope" not in param
        return self.layer(
            kind,
            [x],
            x.shape,
            param,
            in_place=in_place and self.draw.random() < 0.7,
            safe=kind == "ReLU" and not param and in_place is False,
        )

    def branches(self, x: Blob) -> Blob:
        """Two ways from one blob that meet again."""
        channels = self.draw.choice([2, 4])
        one = self.layer(
            "Convolution",
            [x],
            (channels, *x.shape[1:]),
            f"convolution_param {{ num_output: {channels} kernel_size: 3 pad: 1 }}",
            safe=True,
        )
        other = self.layer(
            "Convolution",
            [x],
            (channels, *x.shape[1:]),
            f"convolution_param {{ num_output: {channels} kernel_size: 1 }}",
            safe=True,
        )
        one, other = self.activation(one), self.normalised(other) if self.draw.random() < 0.5 else other
        if self.draw.random() < 0.5:
            return self.layer("Concat", [one, other], (2 * channels, *x.shape[1:]), safe=True)
        operation = self.draw.choice(["SUM", "PROD", "MAX"])
        return self.layer(
            "Eltwise",
            [one, other],
            (channels, *x.shape[1:]),
            f"eltwise_param {{ operation: {operation} }}",
            safe=operation != "PROD",
        )

    def shaped(self, x: Blob) -> Blob:
        """A reshape, after which convolutions still work."""
        channels, height, width = x.shape
        if self.draw.random() < 0.5:
            return self.layer(
                "Reshape",
                [x],
                (channels * height, 1, width),
                f"reshape_param {{ shape {{ dim: 0 dim: {channels * height} dim: 1 dim: {width} }} }}",
            )
        return self.layer(
            "Reshape",
            [x],
            (channels, width, height),
            f"reshape_param {{ shape {{ dim: 0 dim: 0 dim: {width} dim: -1 }} }}",
        )


def random_net(number: int) -> RandomNet:
    """The net of that number."""
    draw = random.Random(number)
    net = RandomNet(number, batch=draw.choice([1, 1, 2, 3]), phase=draw.choice(["TRAIN", "TEST"]))
    drawing = _Drawing(net, draw)
    x = drawing.convolution(Blob("data", IMAGE))
    for _ in range(draw.randint(2, 5)):
        steps = [
            drawing.convolution,
            drawing.pooling,
            drawing.normalised,
            drawing.normalised,
            drawing.activation,
            drawing.activation,
            drawing.branches,
            drawing.shaped,
        ]
        if max(x.shape[1:]) < 16:
            steps.append(drawing.deconvolution)
        x = draw.choice(steps)(x)
    if draw.random() < 0.5 and not x.centred:
        x = drawing.layer("Pooling", [x], (x.shape[0], 1, 1), "pooling_param { pool: AVE global_pooling: true }")
    if draw.random() < 0.3 and "reshape" not in x.name:  # Caffe's Flatten passes no gradient on to a Reshape
        x = drawing.layer("Flatten", [x], x.shape)
    x = drawing.layer("InnerProduct", [x], (CLASSES, 1, 1), f"inner_product_param {{ num_output: {CLASSES} }}")
    bottoms = f'bottom: "{x.name}" bottom: "label"'
    net.layers.append(f'layer {{ name: "loss" type: "SoftmaxWithLoss" {bottoms} top: "loss" }}')
    return net
