"""Layers that change the height and width of images. Forks of Caffe have them, Caffe does not."""

import torch
import torch.nn.functional as F

from pipeline.caffe.layers.layer import Graph, Layer, Shape, Tensors, register


@register("Upsample")
class Upsample(Layer):
    """Enlarges images by repeating values. bottom (N, C, H, W) -> top (N, C, scale_h H, scale_w W).

    A second bottom (N, C, H, W), the second top of a max Pooling, gives for each value its place y W' + x in the top
    (N, C, H', W'), which is 0 elsewhere; of several values for one place the last counts. H' is upsample_h, or scale_h
    (or scale) times H, less one with pad_out_h; W' likewise (alexgkendall/caffe-segnet, upsample_layer.cpp).
    """

    bottoms = (1, 2)
    labels = (1,)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        if len(bottom[0]) != 4 or bottom[-1] != bottom[0]:
            raise self.error(
                f"bottoms of shapes {', '.join(map(str, bottom))} where (N, C, H, W), and of places the "
                "same, was expected"
            )
        param = self.param.upsample_param
        self.sized = param.HasField("upsample_h") or param.HasField("upsample_w")
        if self.sized and len(bottom) == 1:
            raise self.error("upsample_h and upsample_w are for a second bottom, of places; give scale")
        if not self.sized:
            self.scale = self.scales()
        return [(*bottom[0][:2], *self.target(bottom[0]))]

    def scales(self) -> tuple[int, int]:
        """How many times as high and as wide the top is as the bottom."""
        param = self.param.upsample_param
        apart = param.HasField("scale_h") or param.HasField("scale_w")
        if apart == param.HasField("scale"):
            raise self.error(
                f"{'scale beside scale_h and scale_w' if apart else 'no size'} where scale, or scale_h "
                "and scale_w, or with a second bottom upsample_h and upsample_w was expected"
            )
        scale = (param.scale_h, param.scale_w) if apart else (param.scale, param.scale)
        if min(scale) < 1:
            raise self.error(f"scale {scale} where at least 1 was expected")
        for name, padded, factor in zip("hw", (param.pad_out_h, param.pad_out_w), scale, strict=True):
            if padded and (factor != 2 or len(self.param.bottom) == 1):
                raise self.error(f"pad_out_{name} is for a scale of 2 and a second bottom")
        return scale

    def target(self, bottom: Shape) -> tuple[int, int]:
        """The top's height and width for a bottom of shape `bottom`."""
        param = self.param.upsample_param
        if self.sized:
            return param.upsample_h, param.upsample_w
        return bottom[2] * self.scale[0] - param.pad_out_h, bottom[3] * self.scale[1] - param.pad_out_w

    def forward(self, bottom: Tensors) -> Tensors:
        if len(bottom) == 1:
            high, wide = self.scale
            return [bottom[0].repeat_interleave(high, 2).repeat_interleave(wide, 3)]
        values, places = bottom[0].flatten(2), bottom[1].flatten(2)
        height, width = self.target(tuple(bottom[0].shape))
        if not ((places >= 0) & (places < height * width)).all():
            raise self.error(
                f"places in the second bottom where numbers from 0 to {height * width - 1} were expected; "
                "does it come from a Pooling of a bottom of the top's size?"
            )
        top = values.new_zeros(*values.shape[:2], height * width).scatter(2, places.long(), values)
        return [top.unflatten(2, (height, width))]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        if len(bottom) == 2:
            raise self.error("Upsample with a second bottom has no ONNX form here")
        scales = graph.constant(torch.tensor([1, 1, *self.scale], dtype=torch.float32))
        return [
            graph.node(
                "Resize",
                [*bottom, "", scales],
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
        ]


@register("Interp")
class Interp(Layer):
    """Resizes images bilinearly, with corners aligned. bottom (N, C, H, W) -> top (N, C, H', W').

    Negative pad_beg and pad_end first cut that many rows and columns off at the beginning and end, which leaves h rows.
    H' is (h - 1) zoom_factor + 1, or (h - 1) / shrink_factor + 1 rounded down, or `height`, or the height of a second
    bottom; W' likewise (yangguorun/SegStereo, interp_layer.cpp; hszhao/PSPNet, util/interp.cpp).
    """

    bottoms = (1, 2)
    labels = (1,)

    def setup(self, bottom: list[Shape]) -> list[Shape]:
        param = self.param.interp_param
        if any(len(shape) != 4 for shape in bottom):
            raise self.error(f"bottoms of shapes {', '.join(map(str, bottom))} where (N, C, H, W) was expected")
        sizes = {
            "zoom_factor": param.HasField("zoom_factor"),
            "shrink_factor": param.HasField("shrink_factor"),
            "height and width": param.HasField("height") or param.HasField("width"),
            "a second bottom": len(bottom) == 2,
        }
        if sum(sizes.values()) != 1:
            given = " beside ".join(name for name, told in sizes.items() if told) or "no size"
            raise self.error(f"{given} where one of {', '.join(sizes)} was expected")
        if param.pad_beg > 0 or param.pad_end > 0:
            raise self.error(
                f"pad_beg {param.pad_beg}, pad_end {param.pad_end} where at most 0, which cuts, was expected"
            )
        if param.zoom_factor < 1 or param.shrink_factor < 1:
            raise self.error(
                f"zoom_factor {param.zoom_factor}, shrink_factor {param.shrink_factor} where at least 1 was expected"
            )
        left = [size + param.pad_beg + param.pad_end for size in bottom[0][2:]]
        size = self.target(left, bottom)
        if min(*left, *size) < 1:
            raise self.error(f"height and width {tuple(left)} become {size} where at least 1 was expected")
        return [(*bottom[0][:2], *size)]

    def target(self, left: list[int], bottom: list[Shape]) -> tuple[int, int]:
        """The top's height and width: of what is left of the first bottom."""
        param = self.param.interp_param
        if len(bottom) == 2:
            return bottom[1][2], bottom[1][3]
        if param.HasField("height") or param.HasField("width"):
            return param.height, param.width
        height, width = ((size - 1) * param.zoom_factor // param.shrink_factor + 1 for size in left)
        return height, width

    def forward(self, bottom: Tensors) -> Tensors:
        param = self.param.interp_param
        height, width = bottom[0].shape[2] + param.pad_end, bottom[0].shape[3] + param.pad_end
        cut = bottom[0][:, :, -param.pad_beg : height, -param.pad_beg : width]
        size = self.target(list(cut.shape[2:]), [tuple(value.shape) for value in bottom])
        return [F.interpolate(cut, size, mode="bilinear", align_corners=True)]

    def onnx(self, graph: Graph, bottom: list[str]) -> list[str]:
        param = self.param.interp_param
        height, width = graph.shapes[bottom[0]][2:]
        value = bottom[0]
        if param.pad_beg or param.pad_end:
            ends = graph.constant([param.pad_end or 2**31 - 1] * 2)
            value = graph.node("Slice", [value, graph.constant([-param.pad_beg] * 2), ends, graph.constant([2, 3])])
        if len(bottom) == 2:
            size = graph.node("Shape", [bottom[1]], start=2, end=4)
        elif -1 in (height, width) and not param.height:
            raise self.error("Interp by a factor has no ONNX form here for images of any size")
        else:
            left = [side + param.pad_beg + param.pad_end for side in (height, width)]
            size = graph.constant(list(self.target(left, [graph.shapes[bottom[0]]])))
        sizes = graph.node("Concat", [graph.node("Shape", [value], start=0, end=2), size], axis=0)
        return [
            graph.node("Resize", [value, "", "", sizes], mode="linear", coordinate_transformation_mode="align_corners")
        ]
