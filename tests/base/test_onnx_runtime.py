"""What runs the nets: the providers that are named, none unsaid."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import yaml

from pipeline.base.errors import InputError
from pipeline.base.onnx_runtime import PROVIDERS, check_providers, installed_providers, open_session
from pipeline.faces.detector import DETECTORS, build_detector
from pipeline.faces.mtcnn import MODELS
from pipeline.predictor import Predictor

ROOT = Path(__file__).parents[2]
NET = (MODELS / "rnet.onnx").read_bytes()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """As if ONNX Runtime had CUDA: what sessions are opened with."""
    opened: list[dict[str, Any]] = []

    def open_as_told(model: bytes, options: onnxruntime.SessionOptions, providers: list[Any]) -> SimpleNamespace:
        opened.append({"options": options, "providers": providers})
        return SimpleNamespace(get_providers=lambda: [name for name, _ in providers])

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_as_told)
    return opened


def test_the_setting_knows_the_same_names() -> None:
    schema = yaml.safe_load((ROOT / "config/schema.yaml").read_text())
    assert schema["properties"]["providers"]["items"]["enum"] == list(PROVIDERS)
    page = (ROOT / "docs/models.md").read_text()
    assert all(f"`{name}`" in page for name in PROVIDERS)


def test_the_cpu_is_there_and_the_default() -> None:
    assert "cpu" in installed_providers()
    assert open_session(NET, "rnet.onnx").get_providers() == ["CPUExecutionProvider"]


def test_one_name_or_several_may_be_given(cuda: list[dict[str, Any]]) -> None:
    assert check_providers("cuda") == ("cuda",)
    assert check_providers(["cuda", "cpu"]) == ("cuda", "cpu")


@pytest.mark.parametrize(
    ("providers", "message"),
    [
        ("gpu", "providers: gpu where some of cpu, cuda, tensorrt"),
        ((), "providers: none where"),
        (
            ["cpu", "directml"],
            "directml is not in the installed ONNX Runtime, which has .*cpu.*onnxruntime-dir",
        ),
    ],
)
def test_what_is_not_there_is_named(providers: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Predictor(providers=providers)


def test_providers_are_asked_for_in_their_order(cuda: list[dict[str, Any]]) -> None:
    open_session(NET, "rnet.onnx", providers=["cuda", "cpu"])
    (opened,) = cuda
    assert [name for name, _ in opened["providers"]] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert dict(opened["providers"])["CUDAExecutionProvider"]["use_tf32"] == "0"


def test_one_that_does_not_start_is_an_error(cuda: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime itself would go on with the CPU."""
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *_, **__: SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"]),
    )
    with pytest.raises(InputError, match=r"^providers: cuda does not start on this machine; .* one of cpu, cuda$"):
        open_session(NET, "rnet.onnx", providers=["cuda"])


def test_what_is_no_model_is_named() -> None:
    with pytest.raises(InputError, match=r"^some\.onnx: not a model that ONNX Runtime reads"):
        open_session(b"no model", "some.onnx")


def test_further_options_reach_the_session(cuda: list[dict[str, Any]]) -> None:
    open_session(NET, "rnet.onnx", threads=3, enable_mem_pattern=False)
    options = cuda[0]["options"]
    assert (options.intra_op_num_threads, options.enable_mem_pattern) == (3, False)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("name", sorted(set(DETECTORS) - {"yolo", "yunet"}))
def test_every_detector_takes_providers(name: str) -> None:
    assert build_detector(name, providers=("cpu",))


def test_every_net_of_a_predictor_runs_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is a tuple, so a list is what this Predictor was given."""
    asked: list[Any] = []
    monkeypatch.setattr("pipeline.predictor.check_providers", lambda _: ["cpu"])

    def check(names: Sequence[str]) -> Sequence[str]:
        asked.append(names)
        return tuple(names)

    monkeypatch.setattr("pipeline.base.onnx_runtime.check_providers", check)
    predictor = Predictor()
    predictor.session()
    assert asked == [["cpu"]] * 9  # the classifier, MTCNN twice, for images and for sessions, and its last two nets


def test_sessions_are_opened_in_one_place() -> None:
    found = [path for path in (ROOT / "pipeline").rglob("*.py") if "InferenceSession(" in path.read_text()]
    assert found == [ROOT / "pipeline/base/onnx_runtime.py"]
