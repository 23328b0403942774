"""The model that the server serves, as it describes it to clients."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """What the server tells of the model. sha256: of the net's file. card: what it can and cannot do, in Markdown."""

    name: str
    version: str
    sha256: str
    labels: tuple[str, ...]
    card: str

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version}
