"""The precision that `auto` means: bfloat16 only where there are units for it and it is faster with them."""

from types import MappingProxyType

import pytest
import torch

from pipeline.caffe import precision
from pipeline.caffe.precision import bfloat16_speed, faster_precision, has_bfloat16_units


def give(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(capabilities))


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "fma3": True}, False),  # Haswell
        ({"avx512_f": True, "avx512_vnni": True, "avx512_bf16": False, "amx_bf16": False}, False),  # Ice Lake
        ({"avx512_f": True, "avx512_bf16": True}, True),  # Zen 4
        ({"avx512_bf16": True, "amx_bf16": True}, True),  # Sapphire Rapids
        ({"neon": True, "bf16": True}, True),  # Graviton 3
    ],
)
def test_units_are_found_by_asking(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, **capabilities)
    assert has_bfloat16_units("cpu") is expected


def test_without_units_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, avx2=True)
    monkeypatch.setattr(precision, "bfloat16_speed", lambda device: pytest.fail("measured"))
    assert faster_precision("cpu") == ("float32", "there are no units for bfloat16 here")


@pytest.mark.parametrize(("speed", "chosen"), [(1.7, "bfloat16"), (0.8, "float32")])
def test_with_units_the_measurement_decides(speed: float, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, avx512_bf16=True)
    monkeypatch.setattr(precision, "bfloat16_speed", lambda device: speed)
    found, reason = faster_precision("cpu")
    assert found == chosen
    assert f"{speed:.1f} times" in reason


def test_the_measurement_leaves_no_trace() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert 0 < bfloat16_speed("cpu") < 1000
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.is_autocast_enabled("cpu")
