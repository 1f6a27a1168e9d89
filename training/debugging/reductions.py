"""Many tensors reduced to a few numbers each, on their own device: one wait for it, at the end.

REDUCTIONS of series.py says what the numbers mean.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from training.debugging.series import INACTIVE_PERCENTS

COLUMNS = ("mean_abs", "l2", "min", "max", "variance", "mean", "zeros", "p5", "p25", "p50", "p75", "p95")
PERCENTILES = (5, 25, 50, 75, 95)
SAMPLED_VALUES = 512  # of each tensor, for its percentiles: sorting all of them would cost a step
SIGNIFICANT = 6  # digits kept: float32 has no more, and the file is half as long


@torch.no_grad()
def reduce_tensors(tensors: Sequence[Tensor]) -> list[dict[str, float]]:
    """REDUCTIONS of each, in order; waits for the device once, and again where values are not finite."""
    named = []
    for row, tensor in zip(_columns(tensors).tolist(), tensors, strict=True):
        values = {name: shorten(value) for name, value in zip(COLUMNS, row, strict=True)}
        nan, non_finite = 0.0, 0.0
        if not math.isfinite(row[COLUMNS.index("l2")]):
            nan = float(torch.isnan(tensor).sum())
            non_finite = tensor.numel() - float(torch.isfinite(tensor).sum())
        named.append(values | {"count": float(tensor.numel()), "nan": nan, "non_finite": non_finite})
    return named


@torch.no_grad()
def reduce_updates(after: Sequence[Tensor], before: Sequence[Tensor]) -> list[dict[str, float]]:
    """What an optimizer step changed, a dict per tensor; waits for the device."""
    change = torch._foreach_sub(list(after), list(before))
    norms = [torch.stack(torch._foreach_norm(change, order)).float() for order in (1, math.inf, 2)]
    weights = torch.stack(torch._foreach_norm(list(before), 1)).float()
    rows = []
    for tensor, *row in zip(after, *torch.stack([*norms, weights]).tolist(), strict=True):
        mean_abs, weight = row[0] / tensor.numel(), row[3] / tensor.numel()
        values = {"mean_abs": mean_abs, "max_abs": row[1], "l2": row[2], "ratio": mean_abs / (weight + 1e-9)}
        rows.append({name: shorten(value) for name, value in values.items()})
    return rows


@torch.no_grad()
def count_inactive(values: Tensor, *, low: float, high: float) -> dict[str, float]:
    """inactive_X: the share of units that are between `low` and `high` less often than X percent.

    `values` is (N, C, ...) or (N, C); of (N, L, C), a transformer's, the units are the last dimension.
    """
    units = values.movedim(-1 if values.ndim == 3 else 1, 0).flatten(1)
    activity = ((units > low) & (units < high)).float().mean(dim=1)
    shares = [(activity < percent / 100 if percent else activity == 0) for percent in INACTIVE_PERCENTS]
    named = zip(INACTIVE_PERCENTS, torch.stack(shares).float().mean(dim=1).tolist(), strict=True)
    return {f"inactive_{percent}": shorten(share) for percent, share in named}


def shorten(value: float) -> float:
    """To the digits worth a place in a file."""
    return float(f"{value:.{SIGNIFICANT}g}")


def _columns(tensors: Sequence[Tensor]) -> Tensor:
    """(len(tensors), len(COLUMNS)), on their device; by foreach operations where torch has one."""
    whole = [tensor.detach() for tensor in tensors]
    counts = torch.tensor([tensor.numel() for tensor in whole], dtype=torch.float32, device=whole[0].device)
    absolute = torch.stack(torch._foreach_norm(whole, 1)).float() / counts
    norms = torch.stack(torch._foreach_norm(whole, 2)).float()
    extremes = torch.stack([torch.stack(torch.aminmax(tensor)) for tensor in whole]).float()
    moments = torch.stack([torch.stack(torch.var_mean(tensor, correction=0)) for tensor in whole]).float()
    zeros = 1 - torch.stack([torch.count_nonzero(tensor) for tensor in whole]).float() / counts
    ordered = torch.stack([_sample(tensor) for tensor in whole]).float().sort(dim=1).values
    ranks = [round(percent / 100 * (SAMPLED_VALUES - 1)) for percent in PERCENTILES]
    columns = [absolute[:, None], norms[:, None], extremes, moments, zeros[:, None], ordered[:, ranks]]
    return torch.cat(columns, dim=1)


def _sample(tensor: Tensor) -> Tensor:
    """(SAMPLED_VALUES,) evenly spaced in memory, with repetitions where there are fewer."""
    dense = tensor.is_contiguous() or (
        tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    )
    flat = tensor.as_strided((tensor.numel(),), (1,)) if dense else tensor.flatten()
    return flat[_indices(tensor.numel(), tensor.device)]


@functools.lru_cache(maxsize=4096)
def _indices(count: int, device: torch.device) -> Tensor:
    return torch.linspace(0, count - 1, SAMPLED_VALUES, dtype=torch.float64).round().long().to(device)
