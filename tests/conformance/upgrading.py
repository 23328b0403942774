"""The cases of upgrades/: nets in older forms, and what real Caffe's upgrade tools make of them."""

import re

from caffe_root import CaffeRoot
from harness import HERE

from pipeline.caffe.proto.caffe_pb2 import NetParameter
from pipeline.caffe.proto.files import parse_text, write_binary

UPGRADES = HERE / "upgrades"
NAMES = sorted(path.stem for path in UPGRADES.glob("*.prototxt"))


def legacy_net(name: str) -> NetParameter:
    """A case's net as it stands in its file."""
    return parse_text((UPGRADES / f"{name}.prototxt").read_text(), NetParameter, name)


def recorded_upgrade(name: str) -> tuple[NetParameter, list[str]]:
    """The net that real Caffe made of a case, and what it called deprecated."""
    text = (UPGRADES / f"recorded/{name}.prototxt").read_text()
    first, _, net = text.partition("\n")
    return parse_text(net, NetParameter, name), first.removeprefix("# deprecated: ").split(", ") if first else []


def caffe_upgrade_text(caffe: CaffeRoot, name: str) -> str:
    """Upgrade a case in real Caffe; a line of what it calls deprecated, and the net's prototxt."""
    (caffe.folder / "old.prototxt").write_text((UPGRADES / f"{name}.prototxt").read_text())
    log = caffe.run("upgrade_net_proto_text", "old.prototxt", "new.prototxt")
    forms = re.findall(r"Attempting to upgrade .* using deprecated (.+): ", log)
    first = f"# deprecated: {', '.join(forms)}" if forms else ""
    return f"{first}\n{(caffe.folder / 'new.prototxt').read_text()}"


def caffe_upgrade_binary(caffe: CaffeRoot, name: str) -> NetParameter:
    """Upgrade a case in real Caffe as a .caffemodel."""
    write_binary(caffe.folder / "old.caffemodel", legacy_net(name))
    caffe.run("upgrade_net_proto_binary", "old.caffemodel", "new.caffemodel")
    return NetParameter.FromString((caffe.folder / "new.caffemodel").read_bytes())


def record_upgrades(caffe: CaffeRoot) -> None:
    """Keep what real Caffe makes of each case."""
    (UPGRADES / "recorded").mkdir(exist_ok=True)
    for name in NAMES:
        (UPGRADES / f"recorded/{name}.prototxt").write_text(caffe_upgrade_text(caffe, name))
