"""The documents: every relative link leads somewhere, code compiles, and the site's own pages are whole."""

import ast
import importlib.util
import json
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from pipeline.__main__ import STAGES
from pipeline.stages.doctor import CHECKS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "examples", "prototxt", "data/README.md", ".github")
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))})
LINK = re.compile(r"\[[^\]]*\]\((?!\w+:)([^)\s]+)\)")
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.M | re.S)


def blocks(document: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each block of code."""
    for indent, language, text in BLOCK.findall(document.read_text(encoding="utf-8")):
        yield language, textwrap.indent(text, "") if not indent else textwrap.dedent(text)


def anchors(document: Path) -> set[str]:
    """Of its headings, as MkDocs and the usual hosts make them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    pytest.importorskip("mkdocs", reason="the site takes pip install -e '.[docs]'")
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        path = (document.parent / target).resolve() if target else document
        if path == ROOT / "docs/reference/layers.md":  # written as the site is built
            continue
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_in_documents_can_be_parsed(document: Path) -> None:
    parse: dict[str, Callable[[str], object]] = {"python": ast.parse, "json": json.loads, "yaml": yaml.safe_load}
    for language, text in blocks(document):
        if language in parse:
            parse[language](text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_are_commands(document: Path) -> None:
    for language, text in blocks(document):
        if language == "sh":
            for line in text.replace("\\\n", " ").splitlines():
                stage = re.search(r"python -m pipeline (?:--\w+ \S+ )?([a-z_]+)", line)
                assert stage is None or stage[1] in STAGES, line
                shlex.split(line, comments=True)


def test_troubleshooting_has_every_check_of_doctor() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w, ]+) \| .* \| .* \|$", page, re.M)
    assert {check.title for check in CHECKS} <= {title for row in rows for title in row.split(", ")}


def test_a_link_to_a_file_that_is_no_page_names_the_file(hooks: ModuleType) -> None:
    def shown(markdown: str) -> str:
        rewritten: str = hooks.rewrite_links(markdown, "docs/settings.md", "settings.md")
        return rewritten

    assert shown("[config/config.yaml](../config/config.yaml)") == "`config/config.yaml`"
    assert shown("[the settings](../config/config.yaml)") == "the settings (`config/config.yaml`)"
    assert shown("[nets](../prototxt/README.md#proof)") == "[nets](project/nets.md#proof)"
    assert shown("[nets](../prototxt)") == "[nets](project/nets.md)"
    assert shown("[data](data.md#ferplus)") == "[data](data.md#ferplus)"
    for other in ("[here](#top)", "[host](https://host.test/a.md)", "![a picture](images/page.png)"):
        assert shown(other) == other
    assert hooks.rewrite_links("[page](docs/data.md)", "CONTRIBUTING.md", "project/contributing.md") == (
        "[page](../data.md)"
    )


def test_the_page_of_layers_has_every_layer_with_its_fields(hooks: ModuleType) -> None:
    page = hooks.layers_page()
    assert re.findall(r"^## (\w+)$", page, re.M) == sorted(hooks.LAYERS, key=str.lower)
    pooling = page[page.index("## Pooling\n") : page.index("## Power\n")]
    assert "Bottoms: 1. Tops: 1 to 2." in pooling
    assert "| `pool` | MAX, AVE, STOCHASTIC | MAX |" in pooling
    assert "| `stride` | uint32 | 1 |" in pooling
    assert hooks.parameters(hooks.LAYERS["Deconvolution"]) == ["convolution_param"]
    assert hooks.parameters(hooks.LAYERS["LSTM"]) == ["recurrent_param"]
    assert "loss_param" in hooks.parameters(hooks.LAYERS["SoftmaxWithLoss"])
