"""Reductions on the device are what numpy makes of the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from training.debugging.reductions import count_inactive, reduce_tensors, reduce_updates


def _random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(_random(4, 3, 5, 5), id="convolution"),
        pytest.param(_random(4, 3, 5, 5).to(memory_format=torch.channels_last), id="channels last"),
        pytest.param(_random(6, 4).t(), id="transposed"),
        pytest.param(_random(5000)[::2], id="strided"),
        pytest.param(_random(1), id="one value"),
        pytest.param(torch.zeros(7), id="zeros"),
        pytest.param(_random(300, 10).bfloat16(), id="bfloat16"),
    ],
)
def test_reductions_are_those_of_numpy(tensor: Tensor) -> None:
    values = tensor.float().numpy()
    close = 2e-2 if tensor.dtype == torch.bfloat16 else 1e-4

    found = reduce_tensors([tensor, torch.ones(3)])[0]

    expected = {
        "mean": values.mean(), "mean_abs": np.abs(values).mean(), "variance": values.var(),
        "min": values.min(), "max": values.max(), "l2": np.sqrt((values**2).sum()),
        "zeros": (values == 0).mean(), "count": values.size, "nan": 0, "non_finite": 0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=close, abs=1e-4)
    quantiles = [found[f"p{percent}"] for percent in (5, 25, 50, 75, 95)]
    exact = np.percentile(values, (5, 25, 50, 75, 95), method="nearest")
    assert quantiles == pytest.approx(exact, abs=0.35)
    assert quantiles == sorted(quantiles)


def test_values_that_are_not_finite_are_counted() -> None:
    found = reduce_tensors([torch.tensor([1.0, math.nan, math.inf, -math.inf]), torch.ones(2)])

    assert (found[0]["nan"], found[0]["non_finite"]) == (1, 3)
    assert (found[1]["nan"], found[1]["non_finite"]) == (0, 0)


def test_update_is_measured_against_its_weights() -> None:
    before = torch.tensor([[1.0, -1.0], [2.0, 0.0]])

    found = reduce_updates([before + torch.tensor([[0.1, -0.1], [0.3, 0.1]])], [before])[0]

    assert found["mean_abs"] == pytest.approx(0.15)
    assert found["max_abs"] == pytest.approx(0.3)
    assert found["ratio"] == pytest.approx(0.15)
    assert found["l2"] == pytest.approx(math.sqrt(0.12), rel=1e-4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(
            torch.tensor([[0.0, 1.0], [0.0, 1.0]]), {"inactive_0": 0.5, "inactive_50": 0.5}, id="N,C"
        ),
        pytest.param(torch.ones(2, 4, 3, 3), {"inactive_0": 0.0, "inactive_50": 0.0}, id="all fire"),
        pytest.param(
            torch.cat([torch.ones(1, 1, 5, 5), torch.zeros(24, 1, 5, 5)]),
            {"inactive_0": 0.0, "inactive_1": 0.0, "inactive_5": 1.0, "inactive_50": 1.0},
            id="fires in 4 percent",
        ),
        pytest.param(
            torch.stack([torch.zeros(2, 7), torch.ones(2, 7)], dim=2), {"inactive_10": 0.5}, id="N,L,C"
        ),
    ],
)
def test_inactive_units_are_counted(values: Tensor, expected: dict[str, float]) -> None:
    found = count_inactive(values, low=0.0, high=math.inf)

    assert {name: found[name] for name in expected} == pytest.approx(expected)
