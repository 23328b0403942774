"""Draws nets with Graphviz, in place of pycaffe's draw.

A layer is a box: its name and type, what its prototxt says of it, the layers that work in place on its top, and the
shapes of its tops where they are known. The colour tells the kind of layer; arrows are blobs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import graphviz
import torch
from google.protobuf.message import Message

from pipeline.base.atomic import atomic_file
from pipeline.base.console import log
from pipeline.base.errors import InputError
from pipeline.caffe.insert_splits import filter_layers, layer_class
from pipeline.caffe.layers import LAYERS, Layer, Shape
from pipeline.caffe.proto.caffe_pb2 import TEST, TRAIN, FillerParameter, LayerParameter, NetParameter, Phase

RANKDIRS = ("LR", "TB", "RL", "BT")
TEXT_FORMATS = ("dot", "gv", "raw")  # Graphviz's own text, which needs no program
FORMATS = ("svg", "png", "pdf", *TEXT_FORMATS)
MAX_LAYERS = 5000  # Graphviz takes minutes beyond
LINE_WIDTH = 30  # of details, in letters
MAX_VALUE_WIDTH = 40

FONT = "Helvetica,Arial,sans-serif"
INK, FAINT = "#1F2430", "#6B7280"
# A light fill and a line, by the module of pipeline/caffe/layers that a type is in.
OTHERS = ("#EEF0F3", "#8A93A3")
COLOURS = {
    "convolution": ("#DBE8FB", "#2F6FBF"),
    "inner_product": ("#E9E0F7", "#7B4FB3"),
    "pooling": ("#DDF2DA", "#3F8F3A"),
    "recurrent": ("#D9DBF8", "#4247B8"),
    **dict.fromkeys(("activation", "arithmetic"), ("#FFF1C7", "#C08A00")),
    **dict.fromkeys(("normalization", "elementwise", "resizing"), ("#FCE3D0", "#CC6A24")),
    **dict.fromkeys(("loss", "comparison", "detection"), ("#FBDCE0", "#B93347")),
    **dict.fromkeys(("data", "image_data", "window_data", "hdf5"), ("#D5F0EE", "#1F8A83")),
}


class DrawError(InputError):
    """A picture that cannot be made: of this form, or without the program dot."""


@dataclass
class _Box:
    """A layer and those that work in place on its only top; tops with their shapes, None where not known."""

    layer: LayerParameter
    shapes: list[Shape | None]
    in_place: list[LayerParameter] = field(default_factory=list)


def draw_net(
    net: NetParameter, rankdir: str, ext: str = "png", phase: Phase | None = None, display_lrm: bool = False
) -> bytes:
    """Draw a net as `ext`, one of FORMATS; the file's bytes. As pycaffe's function of this name.

    rankdir: where the net grows: LR, TB, RL or BT. phase: draws that phase's layers; None all, and what phase they are
    in. display_lrm: tells the learning rate multipliers of layers whose prototxt gives them.
    Raises DrawError when there is no such form or no program dot, or the net is too large; LayerError as a net does.
    """
    if ext not in FORMATS:
        raise DrawError(f"'{ext}' is no form that nets are drawn in; {', '.join(FORMATS)} are")
    graph = graphviz.Source("".join(to_dot(net, rankdir, phase, display_lrm=display_lrm)))
    if ext in TEXT_FORMATS:
        return graph.source.encode()
    try:
        return graph.pipe(format=ext)
    except graphviz.ExecutableNotFound:
        raise DrawError(
            "the program dot, which draws, is not on this machine; install Graphviz (apt-get install "
            "graphviz, or conda install graphviz), or write a .dot file"
        ) from None
    except graphviz.CalledProcessError as error:
        raise DrawError(f"dot could not draw net '{net.name}': {error.stderr.decode(errors='replace')[:300]}") from None


def draw_net_to_file(
    net: NetParameter, filename: str | Path, rankdir: str = "LR", phase: Phase | None = None, display_lrm: bool = False
) -> None:
    """Draw a net into a file whose suffix tells the form. As pycaffe's function of this name; raises as draw_net()."""
    path = Path(filename)
    picture = draw_net(net, rankdir, path.suffix.lower().removeprefix("."), phase, display_lrm)
    with atomic_file(path) as file:
        file.write(picture)


def to_dot(net: NetParameter, rankdir: str, phase: Phase | None = None, *, display_lrm: bool = False) -> Iterator[str]:
    """The lines of Graphviz's text for a net."""
    if rankdir not in RANKDIRS:
        raise DrawError(f"rankdir '{rankdir}' where {', '.join(RANKDIRS)} was expected")
    if len(net.layer) > MAX_LAYERS:
        raise DrawError(f"net '{net.name}' has {len(net.layer)} layers; up to {MAX_LAYERS} can be drawn")
    layers = list(net.layer if phase is None else filter_layers(net, phase, 0, ()).layer)
    if not layers:
        where = "" if phase is None else f" in phase {Phase.Name(phase)}"
        raise DrawError(f"net '{net.name}' has no layers{where}")
    boxes, arrows = _arrange(layers, _shapes(layers))
    yield f"digraph {graphviz.quoting.quote(net.name or 'Net')} {{\n"
    yield (
        f'  graph [rankdir={rankdir} nodesep=0.3 ranksep=0.35 pad=0.3 bgcolor=white dpi=110 fontname="{FONT}" '
        f"fontsize=20 labelloc=t label=<<B>{_text(net.name or 'Net')}</B>>]\n"
    )
    yield f'  node [shape=box style="rounded,filled" penwidth=1.4 margin="0.12,0.08" fontname="{FONT}"]\n'
    yield f'  edge [color="{FAINT}" arrowsize=0.7 fontname="{FONT}" fontsize=10 fontcolor="{FAINT}"]\n'
    for number, box in enumerate(boxes):
        fill, line = _colours(box.layer)
        label = "".join(_rows(box, phase, display_lrm=display_lrm))
        yield f'  n{number} [fillcolor="{fill}" color="{line}" label=<<TABLE BORDER="0" CELLBORDER="0" '
        yield f'CELLSPACING="2" CELLPADDING="1">{label}</TABLE>>]\n'
    for blob in dict.fromkeys(blob for source, _, blob in arrows if source is None):
        yield f'  "blob {_quoted(blob)}" [label="{_quoted(blob)}" shape=plaintext style=""]\n'
    for source, target, blob in arrows:
        if source is None:
            yield f'  "blob {_quoted(blob)}" -> n{target} [style=dashed]\n'
            continue
        # Where a layer has one top, the arrow needs no name.
        label = f' [label=" {_quoted(blob)} "]' if len(boxes[source].layer.top) > 1 else ""
        yield f"  n{source} -> n{target}{label}\n"
    yield "}\n"


def _arrange(
    layers: Sequence[LayerParameter], shapes: Sequence[Mapping[str, Shape]]
) -> tuple[list[_Box], list[tuple[int | None, int, str]]]:
    """Boxes, and arrows from box to box with their blobs; from None where no layer makes the blob.

    In a net of all phases a blob may have several makers, one a phase. A layer that works in place joins the box of its
    bottom's maker when nothing else reads what was there before, so that the arrows still tell the order.
    """
    boxes: list[_Box] = []
    arrows: list[tuple[int | None, int, str]] = []
    makers: dict[str, list[int]] = {}
    read: set[str] = set()
    for layer, known in zip(layers, shapes, strict=True):
        in_place = len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top)
        sources = makers.get(layer.bottom[0], []) if in_place else []
        if in_place and layer.bottom[0] not in read and len(sources) == 1 and len(boxes[sources[0]].layer.top) == 1:
            boxes[sources[0]].in_place.append(layer)
            continue
        number = len(boxes)
        boxes.append(_Box(layer, [known.get(top) for top in layer.top]))
        for bottom in layer.bottom:
            sources = [source for source in makers.get(bottom, []) if _phases(boxes[source].layer) & _phases(layer)]
            arrows += [(source, number, bottom) for source in sources] or [(None, number, bottom)]
            read.add(bottom)
        for top in layer.top:
            # A second maker is one of another phase, unless it has read the blob.
            makers[top] = [*([] if top in layer.bottom else makers.get(top, [])), number]
            read.discard(top)
    return boxes, arrows


def _shapes(layers: Sequence[LayerParameter]) -> list[dict[str, Shape]]:
    """The shapes of each layer's tops, as far as they are known without the data. No blob is allocated."""
    shapes: dict[str, Shape] = {}
    found: list[dict[str, Shape]] = []
    unknown = False
    for param in layers:
        tops: dict[str, Shape] = {}
        if all(bottom in shapes for bottom in param.bottom):
            try:
                copy = LayerParameter()
                copy.CopyFrom(param)
                planned = type("Planned", (layer_class(copy),), {"add_blob": _plan_blob})
                layer = planned(copy, torch.Generator())
                tops = dict(zip(param.top, layer.setup([shapes[bottom] for bottom in param.bottom]), strict=True))
            except (InputError, OSError, RuntimeError) as error:  # RuntimeError: sizes that torch does not take
                if not unknown:
                    log.warning("shapes are not drawn from layer '%s' on: %s", param.name, error)
                unknown = True
        for top in param.top:
            shapes.pop(top, None)
        shapes.update(tops)
        found.append(tops)
    return found


def _plan_blob(layer: Layer, shape: Shape, _: FillerParameter) -> None:
    """Stands in for Layer.add_blob: a blob of that shape, without memory."""
    layer.blobs.append(torch.empty(shape, device="meta"))


def _rows(box: _Box, phase: Phase | None, *, display_lrm: bool) -> Iterator[str]:
    """The rows of a box's table."""
    layer = box.layer
    yield _row(
        f'<FONT POINT-SIZE="13" COLOR="{INK}"><B>{_text(layer.name)}</B></FONT>'
        f'<FONT POINT-SIZE="11" COLOR="{FAINT}">  {_text(layer.type + _of_phase(layer, phase))}</FONT>'
    )
    for line in _wrapped(_details(layer, display_lrm=display_lrm)):
        yield _row(f'<FONT POINT-SIZE="11" COLOR="{INK}">{_text(line)}</FONT>')
    for other in box.in_place:
        details = "".join(f", {detail}" for detail in _details(other, display_lrm=display_lrm))
        text = f"{other.name}  {other.type}{_of_phase(other, phase)}{details}"
        fill, line = _colours(other)
        yield _row(
            f'<FONT POINT-SIZE="11" COLOR="{INK}">{_text(text)}</FONT>',
            f' BGCOLOR="{fill}" BORDER="1" COLOR="{line}" CELLPADDING="2"',
        )
    for top, shape in zip(layer.top, box.shapes, strict=True):
        name = "" if list(layer.top) == [layer.name] else f"{top}  "
        told = " × ".join(map(str, shape)) if shape else "scalar" if shape == () else ""
        if name or told:
            yield _row(f'<FONT POINT-SIZE="10" COLOR="{FAINT}">{_text(f"{name}{told}".rstrip())}</FONT>')


def _details(layer: LayerParameter, *, display_lrm: bool) -> Iterator[str]:
    """What the prototxt says in the message of the layer's own type, and of its losses and shared parameters."""
    for descriptor, value in layer.ListFields():
        if isinstance(value, Message) and descriptor.name != "transform_param":
            yield from _values(value)
    for weight in layer.loss_weight:
        yield f"loss weight {weight:g}"
    names = [spec.name for spec in layer.param if spec.name]
    if names:
        yield f"shared as {', '.join(names)}"
    if display_lrm and layer.param:
        yield f"lr mult {', '.join(f'{spec.lr_mult:g}' for spec in layer.param)}"


def _values(message: Message) -> Iterator[str]:
    """The fields of a message that are no messages themselves."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            continue
        values = list(value) if descriptor.is_repeated else [value]
        if descriptor.enum_type is not None:
            values = [descriptor.enum_type.values_by_number[item].name for item in values]
        told = " × ".join(_value(item) for item in values)
        told = told if len(told) <= MAX_VALUE_WIDTH else f"…{told[1 - MAX_VALUE_WIDTH :]}"
        yield f"{descriptor.name.replace('_', ' ')} {told}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(details: Iterator[str]) -> Iterator[str]:
    line = ""
    for detail in details:
        if line and len(line) + len(detail) + 2 > LINE_WIDTH:
            yield line
            line = detail
        else:
            line = f"{line}, {detail}" if line else detail
    if line:
        yield line


def _phases(layer: LayerParameter) -> set[Phase]:
    """The phases that a layer's rules leave it in; other conditions of theirs may hold."""
    both = {TRAIN, TEST}
    if layer.include:
        return set().union(*({rule.phase} if rule.HasField("phase") else both for rule in layer.include))
    whole = (rule for rule in layer.exclude if [name.name for name, _ in rule.ListFields()] == ["phase"])
    return both - {rule.phase for rule in whole}


def _of_phase(layer: LayerParameter, phase: Phase | None) -> str:
    """Where all phases are drawn, the one that a layer is in, unless it is in both."""
    phases = _phases(layer)
    return f", {Phase.Name(*phases)}" if phase is None and len(phases) == 1 else ""


def _colours(layer: LayerParameter) -> tuple[str, str]:
    module = LAYERS[layer.type].__module__ if layer.type in LAYERS else ""
    return COLOURS.get(module.rpartition(".")[2], OTHERS)


def _row(text: str, attributes: str = "") -> str:
    return f"<TR><TD{attributes}>{text}</TD></TR>"


def _text(text: str) -> str:
    """Text for one of Graphviz's labels in HTML, in which XML's control letters may not stand."""
    return escape("".join(letter if letter.isprintable() else "�" for letter in text))


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
