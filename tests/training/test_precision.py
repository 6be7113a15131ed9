"""bfloat16 by rounding equals bfloat16 by instructions, forwards and backwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from occ_perception.training import precision  # noqa: E402
from occ_perception.training.precision import bfloat16_products  # noqa: E402

pytestmark = pytest.mark.torch
BFLOAT16_STEP = 2.0**-8


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 1),
                               torch.nn.Flatten(2), torch.nn.Linear(36, 5))


def run(module: torch.nn.Module, *, enabled: bool = True) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Outputs and gradients of the parameters."""
    images = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    with bfloat16_products("cpu", enabled):
        features = module(images)
        outputs = features @ features.transpose(1, 2)
    outputs.float().square().mean().backward()
    return outputs.detach(), [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


@pytest.fixture(params=[True, False], ids=["instructions", "no instructions"])
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(precision, "has_bfloat16_instructions", lambda _: request.param)
    return bool(request.param)


def test_rounding_equals_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for there in (True, False):
        monkeypatch.setattr(precision, "has_bfloat16_instructions", lambda _, there=there: there)
        results.append(run(network()))
    (native, native_gradients), (rounded, rounded_gradients) = results
    scale = float(native.float().abs().max())
    assert rounded.dtype == native.dtype == torch.bfloat16
    assert torch.allclose(rounded.float(), native.float(), atol=2 * BFLOAT16_STEP * scale)
    assert len(rounded_gradients) == 6
    for ours, theirs in zip(rounded_gradients, native_gradients, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm()) < 8 * BFLOAT16_STEP * float(theirs.norm())


def test_rounding_is_no_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16_instructions", lambda _: False)
    rounded, _ = run(network())
    exact, _ = run(network(), enabled=False)
    assert exact.dtype == torch.float32
    assert not torch.equal(rounded.float(), exact)


@pytest.mark.parametrize("make", [lambda: torch.nn.Conv2d(2, 3, 3), lambda: torch.nn.Linear(5, 3)])
def test_both_ways_give_bfloat16_and_end_with_the_context(instructions: bool,
                                                          make: Callable[[], torch.nn.Module]) -> None:
    module = make()
    inputs = torch.ones(1, 2, 5, 5)
    with bfloat16_products("cpu", True):
        assert module(inputs).dtype == torch.bfloat16
    assert module(inputs).dtype == torch.float32


def test_a_gpu_has_the_instructions() -> None:
    assert precision.has_bfloat16_instructions("cuda")


@pytest.mark.parametrize(("capabilities", "there"), [
    ({"avx512_f": True, "avx512_bf16": True}, True),
    ({"avx512_f": False, "amx_bf16": True}, True),
    ({"avx512_f": True, "avx512_vnni": True, "avx512_bf16": False}, False),  # there oneDNN's bfloat16 is slow
    ({"avx2": True, "num_logical_cores": 2}, False),
])
def test_a_cpu_has_them_if_it_says_so(capabilities: dict[str, object], there: bool,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert precision.has_bfloat16_instructions("cpu") is there
