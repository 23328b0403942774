"""What Caffe does to a net's message before it builds a layer: choose by phase, and split shared tops."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from pipeline.base.console import log
from pipeline.caffe.forks import FOREIGN_TYPES
from pipeline.caffe.layers import LAYERS, Layer, LayerError
from pipeline.caffe.proto.caffe_pb2 import LayerParameter, NetParameter, NetStateRule, Phase
from pipeline.caffe.proto.prototxt_errors import suggest

AUTOMATIC_TOP = "(automatic)"  # of a loss without a top, as nets of 2013 have it: it counts, but is no output


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


def choose_layers(net: NetParameter, phase: Phase, level: int, stages: Collection[str]) -> list[int]:
    """The places of the layers that an include rule lets in or no exclude rule keeps out."""
    chosen = []
    for place, layer in enumerate(net.layer):
        if layer.include and layer.exclude:
            raise LayerError(layer.name, "include and exclude rules exclude one another", place)
        rules = layer.include or layer.exclude
        matches = any(rule_matches(rule, phase, level, stages, layer.name) for rule in rules)
        if not rules or matches == bool(layer.include):
            chosen.append(place)
    return chosen


def take_layers(net: NetParameter, places: Iterable[int]) -> NetParameter:
    """The net with only the layers at those places."""
    taken = NetParameter()
    taken.CopyFrom(net)
    del taken.layer[:]
    taken.layer.extend(net.layer[place] for place in places)
    return taken


def filter_layers(net: NetParameter, phase: Phase, level: int, stages: Collection[str]) -> NetParameter:
    """The net with the layers of choose_layers() alone."""
    return take_layers(net, choose_layers(net, phase, level, stages))


Place = tuple[int, int]  # of a top: its layer's index and its own in the layer


def insert_splits(net: NetParameter) -> Iterator[tuple[int, LayerParameter]]:
    """Give every bottom a top of its own: one used n times goes through a Split layer with n tops.

    Yields the layers, each with its place in `net`, that of a Split being the place of the layer before it. They are
    named as Caffe names them (caffe/util/insert_splits.cpp), since they stand in a .caffemodel. Raises LayerError for a
    bottom that no layer before it makes and for a top made twice.
    """
    sources, uses = _find_uses(net)
    taken: dict[Place, int] = {}

    def next_name(place: Place) -> str:
        blob, name = net.layer[place[0]].top[place[1]], net.layer[place[0]].name
        index = taken.get(place, 0)
        taken[place] = index + 1
        return f"{blob}_{name}_{place[1]}_split_{index}"

    for i, layer in enumerate(net.layer):
        added = LayerParameter()
        added.CopyFrom(layer)
        for j in range(len(layer.bottom)):
            if uses[sources[i, j]] > 1:
                if layer.top[j : j + 1] == [layer.bottom[j]]:
                    raise _shared_in_place(net, i, layer.bottom[j], sources)
                added.bottom[j] = next_name(sources[i, j])
        splitters = []
        for j, top in enumerate(layer.top):
            if uses.get((i, j), 0) > 1:
                weight = layer.loss_weight[j] if j < len(layer.loss_weight) else 0
                splitters.append(_splitter(layer.name, top, j, uses[i, j], weight))
                if weight:
                    del added.loss_weight[:]
                    taken[i, j] = 1  # the loss is the splitter's first top
        yield from ((i, each) for each in (added, *splitters))


def _find_uses(net: NetParameter) -> tuple[dict[Place, Place], dict[Place, int]]:
    """For every bottom, by layer and index, the top it comes from; for every top, how often it is used."""
    maker: dict[str, Place] = {}
    uses: dict[Place, int] = {}
    sources: dict[Place, Place] = {}
    for i, layer in enumerate(net.layer):
        for j, bottom in enumerate(layer.bottom):
            if bottom not in maker:
                raise _missing_bottom(net, i, bottom, maker)
            sources[i, j] = maker[bottom]
            uses[maker[bottom]] = uses.get(maker[bottom], 0) + 1
        for j, top in enumerate(layer.top):
            in_place = j < len(layer.bottom) and layer.bottom[j] == top
            if top in maker and not in_place:
                first = maker[top][0], net.layer[maker[top][0]].name
                raise LayerError(layer.name, f"top '{top}' is already made by layer '{first[1]}'", i, first)
            maker[top] = (i, j)
        for j, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            if weight:  # being a loss is a use as well
                uses[i, j] = uses.get((i, j), 0) + 1
    return sources, uses


def _shared_in_place(net: NetParameter, place: int, blob: str, sources: Mapping[Place, Place]) -> LayerError:
    """The error of a layer that changes a blob in place which another one takes as it was, or which is a loss."""
    source = next(sources[place, j] for j, bottom in enumerate(net.layer[place].bottom) if bottom == blob)
    others = [number for (number, _), made in sources.items() if made == source and number != place]
    reason = f"it changes '{blob}' in place, "
    if not others:
        reason += "which is a loss or is taken twice; give its top another name"
        return LayerError(net.layer[place].name, reason, place)
    other = others[0], net.layer[others[0]].name
    return LayerError(
        net.layer[place].name,
        f"{reason}which layer '{other[1]}' takes as it was before; give its top another name",
        place,
        other,
    )


def _missing_bottom(net: NetParameter, place: int, bottom: str, made: Collection[str]) -> LayerError:
    """The error of a bottom that is made by no layer before the one at `place`, with what is known of why."""
    layer = net.layer[place]
    makers = {top: number for number in range(len(net.layer) - 1, place - 1, -1) for top in net.layer[number].top}
    reason = f"bottom '{bottom}' is the top of no layer before it in this phase"
    if cycle := _find_cycle(net, place, {top: number for top, number in makers.items() if top not in made}):
        names = " -> ".join(f"'{net.layer[number].name}'" for number in cycle)
        return LayerError(layer.name, f"{reason}: layers need one another's tops in a cycle, {names}", place)
    if bottom in makers:
        later = makers[bottom], net.layer[makers[bottom]].name
        return LayerError(
            layer.name,
            f"{reason}; layer '{later[1]}', which comes after it, makes it: layers are listed in "
            "the order in which they are computed",
            place,
            later,
        )
    return LayerError(layer.name, reason + suggest(bottom, made), place)


def _find_cycle(net: NetParameter, place: int, makers: Mapping[str, int]) -> list[int]:
    """The places on a way of blobs from a layer back to itself; none when there is no such way."""
    takers: dict[int, int] = {}
    reached = [place]
    for taker in reached:  # grows as it is gone through
        for maker in (makers[bottom] for bottom in net.layer[taker].bottom if bottom in makers):
            if maker == place:
                way = [place, taker]
                while way[-1] != place:
                    way.append(takers[way[-1]])
                return way
            if maker not in takers:
                takers[maker] = taker
                reached.append(maker)
    return []


def _splitter(layer: str, blob: str, index: int, count: int, loss_weight: float) -> LayerParameter:
    name = f"{blob}_{layer}_{index}_split"
    splitter = LayerParameter(name=name, type="Split", bottom=[blob], top=[f"{name}_{k}" for k in range(count)])
    if loss_weight:
        splitter.loss_weight.extend([loss_weight, *[0.0] * (count - 1)])
    return splitter


def layer_class(layer: LayerParameter) -> type[Layer]:
    """The class of a layer's type. Raises LayerError when it is unknown."""
    if not layer.type:
        raise LayerError(layer.name, 'it has no type, such as type: "Convolution"')
    if layer.type in FOREIGN_TYPES:
        raise LayerError(layer.name, f"type '{layer.type}' {FOREIGN_TYPES[layer.type]}")
    if layer.type not in LAYERS:
        hint = suggest(layer.type, LAYERS) or f"; the engine has {', '.join(sorted(LAYERS))}"
        raise LayerError(layer.name, f"type '{layer.type}' is unknown{hint}")
    return LAYERS[layer.type]
