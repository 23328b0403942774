"""What the site has beside the files of docs: pages of the repository's root, the layers, and links between them.

`mkdocs.yml` names this file under `hooks`; https://www.mkdocs.org/dev-guide/plugins/#events says when each runs.
"""

import inspect
import os.path
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from mkdocs.structure.files import File, Files

from pipeline.caffe.layers import LAYERS
from pipeline.caffe.layers.layer import Layer
from pipeline.caffe.proto.caffe_pb2 import LayerParameter

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # of files outside docs, and the page of the site that shows each
    "CHANGELOG.md": "project/changelog.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "MODEL_CARD.md": "project/model-card.md",
    "RELEASING.md": "project/releasing.md",
    "SECURITY.md": "project/security.md",
    "data/README.md": "project/data-folder.md",
    "prototxt/README.md": "project/nets.md",
}
LAYERS_PAGE = "reference/layers.md"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
FIRST_EXTENSION = 1001  # caffe.proto: fields from this number on are not in Caffe


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are written by this file."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, LAYERS_PAGE, content=layers_page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links to files of the repository into links to their pages; where there is none, name the file."""
    site_page = page.file.src_uri
    sources = {shown: source for source, shown in PAGES.items()}
    return rewrite_links(markdown, sources.get(site_page, f"docs/{site_page}"), site_page)


def rewrite_links(markdown: str, source: str, site_page: str) -> str:
    """source: the file's path in the repository. site_page: its path in the site."""

    def rewrite(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        path = os.path.normpath(PurePosixPath(source).parent / target).replace(os.sep, "/")
        if (ROOT / path / "README.md").is_file():
            path = f"{path}/README.md"
        in_docs = path.startswith("docs/") and not (ROOT / path).is_dir()
        shown = PAGES.get(path) or (path.removeprefix("docs/") if in_docs else None)
        if shown is None:
            name = f"`{path}`"
            return name if text.strip("`") == path else f"{text} ({name})"
        return f"[{text}]({os.path.relpath(shown, PurePosixPath(site_page).parent).replace(os.sep, '/')}{anchor})"

    return LINK.sub(rewrite, markdown)


def layers_page() -> str:
    """Every registered layer: what it computes, its bottoms and tops, and the fields of its parameters."""
    lines = [
        "# Layers",
        "",
        f"The engine has {len(LAYERS)} layer types. This page is made from the registry and from `caffe.proto`. "
        "[Parity](../parity.md) lists how far each is from real Caffe.",
        "",
    ]
    for name, layer in sorted(LAYERS.items(), key=lambda item: item[0].lower()):
        lines += [f"## {name}", "", *_docstring(layer), ""]
        lines += [f"Bottoms: {_number(*layer.bottoms)}. Tops: {_number(*layer.tops)}.", ""]
        for parameter in parameters(layer):
            lines += _fields(parameter)
    return "\n".join(lines)


def parameters(layer: type[Layer]) -> list[str]:
    """The fields of LayerParameter that hold a layer's own settings: those that its class reads."""
    classes = [each for each in layer.__mro__ if issubclass(each, Layer) and each is not Layer]
    source = "\n".join(map(inspect.getsource, classes))
    named = [*re.findall(r"\bparam\.(\w+_param)\b", source), *layer.reads, _own(layer)]
    known = {field.name for field in LayerParameter.DESCRIPTOR.fields if field.message_type is not None}
    return sorted(known.intersection(named))


def _own(layer: type[Layer]) -> str:
    for field in LayerParameter.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.name == f"{layer.type}Parameter":
            return str(field.name)
    return ""


def _docstring(layer: type[Layer]) -> Iterator[str]:
    """Its text, in which < > * _ are letters."""
    for line in (inspect.getdoc(layer) or "").splitlines():
        yield re.sub(r"([<>*_\[\]|\\])", r"\\\1", line)


def _number(least: int, most: int | None) -> str:
    return f"{least} or more" if most is None else str(least) if least == most else f"{least} to {most}"


def _fields(parameter: str) -> Iterator[str]:
    message = LayerParameter.DESCRIPTOR.fields_by_name[parameter].message_type
    yield f"| `{parameter}` | type | default |"
    yield "| --- | --- | --- |"
    for field in sorted(message.fields, key=lambda field: field.number):
        note = " (not in Caffe)" if field.number >= FIRST_EXTENSION else ""
        yield f"| `{field.name}`{note} | {_type(field)} | {_default(field)} |"
    yield ""


def _type(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        name = ", ".join(value.name for value in field.enum_type.values)
    elif field.message_type is not None:
        name = field.message_type.name
    else:
        kinds = (kind for kind in vars(FieldDescriptor) if kind.startswith("TYPE_"))
        name = next(kind for kind in kinds if getattr(FieldDescriptor, kind) == field.type)[5:].lower()
    return f"{name}, repeated" if field.is_repeated else name


def _default(field: FieldDescriptor) -> str:
    if field.is_repeated or field.message_type is not None or not field.has_default_value:
        return ""
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[field.default_value].name)
    if isinstance(field.default_value, float):
        return f"{field.default_value:g}"
    return str(field.default_value).lower() if isinstance(field.default_value, bool) else f"{field.default_value}"
