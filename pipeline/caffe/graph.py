"""What Caffe does to a net's message before it builds a layer: choose by phase, and split shared tops."""

from collections.abc import Collection

from pipeline.caffe.caffe_pb2 import LayerParameter, NetParameter, NetStateRule, Phase
from pipeline.caffe.layers import LAYERS, Layer, LayerError
from pipeline.console import log


def rule_matches(rule: NetStateRule, phase: Phase, level: int, stages: Collection[str], layer: str) -> bool:
    """Whether every condition of a layer's rule holds (caffe/net.cpp, StateMeetsRule); if not, the log says which."""
    if rule.HasField("phase") and rule.phase != phase:
        reason = f"phase ({phase}) differed from the phase ({rule.phase})"
    elif rule.HasField("min_level") and level < rule.min_level:
        reason = f"level ({level}) is below the min_level ({rule.min_level})"
    elif rule.HasField("max_level") and level > rule.max_level:
        reason = f"level ({level}) is above the max_level ({rule.max_level})"
    elif absent := [stage for stage in rule.stage if stage not in stages]:
        reason = f"did not contain stage '{absent[0]}'"
    elif present := [stage for stage in rule.not_stage if stage in stages]:
        reason = f"contained a not_stage '{present[0]}'"
    else:
        return True
    log.debug("The NetState %s specified by a rule in layer %s", reason, layer)
    return False


def filter_layers(net: NetParameter, phase: Phase, level: int, stages: Collection[str]) -> NetParameter:
    """Keep the layers that an include rule lets in or no exclude rule keeps out."""
    kept = NetParameter()
    kept.CopyFrom(net)
    del kept.layer[:]
    for layer in net.layer:
        if layer.include and layer.exclude:
            raise LayerError(layer.name, "include and exclude rules exclude one another")
        rules = layer.include or layer.exclude
        matches = any(rule_matches(rule, phase, level, stages, layer.name) for rule in rules)
        if not rules or matches == bool(layer.include):
            kept.layer.add().CopyFrom(layer)
    return kept


Place = tuple[int, int]  # of a top: its layer's index and its own in the layer


def insert_splits(net: NetParameter) -> NetParameter:
    """Give every bottom a top of its own: one used n times goes through a Split layer with n tops.

    The layers are named as Caffe names them (caffe/util/insert_splits.cpp), since they stand in a .caffemodel. Raises
    LayerError for a bottom that no layer before it makes and for a top made twice.
    """
    sources, uses = _find_uses(net)
    split = NetParameter()
    split.CopyFrom(net)
    del split.layer[:]
    taken: dict[Place, int] = {}

    def next_name(place: Place) -> str:
        blob, name = net.layer[place[0]].top[place[1]], net.layer[place[0]].name
        index = taken.get(place, 0)
        taken[place] = index + 1
        return f"{blob}_{name}_{place[1]}_split_{index}"

    for i, layer in enumerate(net.layer):
        added = split.layer.add()
        added.CopyFrom(layer)
        for j in range(len(layer.bottom)):
            if uses[sources[i, j]] > 1:
                added.bottom[j] = next_name(sources[i, j])
        for j, top in enumerate(layer.top):
            if uses.get((i, j), 0) > 1:
                weight = layer.loss_weight[j] if j < len(layer.loss_weight) else 0
                splitter = _splitter(layer.name, top, j, uses[i, j], weight)
                split.layer.append(splitter)
                if weight:
                    del added.loss_weight[:]
                    taken[i, j] = 1  # the loss is the splitter's first top
    return split


def _find_uses(net: NetParameter) -> tuple[dict[Place, Place], dict[Place, int]]:
    """For every bottom, by layer and index, the top it comes from; for every top, how often it is used."""
    maker: dict[str, Place] = {}
    uses: dict[Place, int] = {}
    sources: dict[Place, Place] = {}
    for i, layer in enumerate(net.layer):
        for j, bottom in enumerate(layer.bottom):
            if bottom not in maker:
                raise LayerError(layer.name, f"bottom '{bottom}' is the top of no layer before it in this phase")
            sources[i, j] = maker[bottom]
            uses[maker[bottom]] = uses.get(maker[bottom], 0) + 1
        for j, top in enumerate(layer.top):
            in_place = j < len(layer.bottom) and layer.bottom[j] == top
            if top in maker and not in_place:
                raise LayerError(layer.name, f"top '{top}' is already made by layer '{net.layer[maker[top][0]].name}'")
            maker[top] = (i, j)
        for j, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            if weight:  # being a loss is a use as well
                uses[i, j] = uses.get((i, j), 0) + 1
    return sources, uses


def _splitter(layer: str, blob: str, index: int, count: int, loss_weight: float) -> LayerParameter:
    name = f"{blob}_{layer}_{index}_split"
    splitter = LayerParameter(name=name, type="Split", bottom=[blob], top=[f"{name}_{k}" for k in range(count)])
    if loss_weight:
        splitter.loss_weight.extend([loss_weight, *[0.0] * (count - 1)])
    return splitter


def layer_class(layer: LayerParameter) -> type[Layer]:
    """The class of a layer's type. Raises LayerError when it is unknown."""
    if layer.type not in LAYERS:
        raise LayerError(layer.name, f"type '{layer.type}' is unknown; the engine has {', '.join(sorted(LAYERS))}")
    return LAYERS[layer.type]
