"""Whether a map is true: hide what it marks, and the prediction must fall (RISE, Petsiuk et al. 2018).

Pictures are hidden in cells, the same grid for every method and for the random draw each is compared with:
single pixels would make a pattern that networks answer wildly, whatever was hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.explain.methods import BATCH_SIZE, Map, Question

CELLS_PER_SIDE = 16
STEPS = 10  # the curves' points are 0, 10, ... 100 % of the cells
TOP_SHARE = 0.2  # what "the most important part" means in words and figures
RANDOM_DRAWS = 8

Cells = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithfulness:
    """Of one map. Probabilities are those of the label that was predicted for the whole picture."""

    deletion: float  # area under probability by share hidden, most important first; low is faithful
    insertion: float  # by share shown; high is faithful
    without_top: float  # probability with the top fifth hidden


def measure_faithfulness(question: Question, attribution: Map) -> Faithfulness:
    """`attribution` (H, W)."""
    cells = cut_cells(attribution.shape)
    order = rank_cells(attribution, cells)
    counts = [round(len(order) * step / STEPS) for step in range(STEPS + 1)]
    tops = [order[:count] for count in (*counts, round(len(order) * TOP_SHARE))]
    masks = torch.stack([_mask(cells, top) for top in tops])
    deleted = predict_masked(question, masks)
    inserted = predict_masked(question, ~masks[:-1])
    return Faithfulness(
        deletion=float(np.trapezoid(deleted[:-1], dx=1 / STEPS)),
        insertion=float(np.trapezoid(inserted, dx=1 / STEPS)),
        without_top=float(deleted[-1]),
    )


def predict_without_random(question: Question) -> float:
    """Mean probability with a random fifth of the cells hidden: what a map has to beat."""
    height, width = question.images.shape[2:]
    cells = cut_cells((height, width))
    count = int(cells.max()) + 1
    draw = np.random.default_rng(question.seed)
    drawn = [draw.permutation(count)[: round(count * TOP_SHARE)] for _ in range(RANDOM_DRAWS)]
    return float(predict_masked(question, torch.stack([_mask(cells, top) for top in drawn])).mean())


def predict_masked(question: Question, masks: Tensor) -> NDArray[np.float64]:
    """Probability of the target, (N,), with the pixels hidden where `masks` (N, H, W) is true."""
    probabilities = []
    with torch.no_grad():
        for batch in torch.split(masks, BATCH_SIZE):
            images = torch.where(batch[:, None], question.hidden, question.images)
            probabilities.append(question.log_probabilities(images)[:, question.target].exp())
    return torch.cat(probabilities).double().numpy()


def cut_cells(shape: tuple[int, ...]) -> Cells:
    """The cell of each pixel, (H, W), numbered by rows."""
    rows, columns = (np.arange(side) * min(CELLS_PER_SIDE, side) // side for side in (shape[0], shape[1]))
    return np.asarray(rows[:, None] * (columns.max() + 1) + columns[None, :], dtype=np.int64)


def rank_cells(attribution: Map, cells: Cells) -> Cells:
    """The cells' numbers, the most important first."""
    flat = cells.ravel()
    means = np.bincount(flat, weights=attribution.ravel()) / np.bincount(flat)
    return np.asarray(np.argsort(-means, kind="stable"), dtype=np.int64)


def _mask(cells: Cells, top: Cells) -> Tensor:
    return torch.from_numpy(np.isin(cells, top))
