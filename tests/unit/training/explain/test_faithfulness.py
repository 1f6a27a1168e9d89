"""Deletion and insertion on a network whose answer can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.explain.faithfulness import (
    TOP_SHARE,
    cut_cells,
    measure_faithfulness,
    predict_without_random,
    rank_cells,
)
from training.explain.methods import Question

SIDE = 32


class Bright(nn.Module):
    """Probability of label 1: how much of the picture's upper left quarter is lit."""

    def forward(self, images: Tensor) -> Tensor:
        lit = images[:, 0, : SIDE // 2, : SIDE // 2].mean((1, 2)).clamp(1e-6, 1 - 1e-6)
        return torch.log(torch.stack([1 - lit, lit], dim=1))


@pytest.fixture
def question() -> Question:
    images = torch.ones(1, 3, SIDE, SIDE)
    return Question(network=Bright(), images=images, hidden=torch.zeros_like(images), target=1)


def test_true_map_scores_better_than_a_false_one(question: Question) -> None:
    true = np.zeros((SIDE, SIDE))
    true[: SIDE // 2, : SIDE // 2] = 1.0

    right, wrong = measure_faithfulness(question, true), measure_faithfulness(question, -true)

    # 51 of 256 cells hidden, all of them among the 64 that count
    assert right.without_top == pytest.approx(13 / 64, abs=1e-3)
    assert wrong.without_top == pytest.approx(1.0, abs=1e-3)
    # a straight line from 1 to 0 over a quarter of the cells, by the trapezoidal rule at steps of a tenth
    assert right.deletion == pytest.approx(1 / 8, abs=0.01)
    assert wrong.deletion == pytest.approx(7 / 8, abs=0.01)
    assert right.insertion == pytest.approx(7 / 8, abs=0.01)
    assert wrong.insertion == pytest.approx(1 / 8, abs=0.01)


def test_random_fifth_costs_a_fifth(question: Question) -> None:
    assert predict_without_random(question) == pytest.approx(1 - TOP_SHARE, abs=0.06)


@pytest.mark.parametrize("shape", [(32, 32), (30, 50), (8, 8)])
def test_cells_are_numbered_without_gaps(shape: tuple[int, int]) -> None:
    cells = cut_cells(shape)

    assert cells.shape == shape
    assert np.array_equal(np.unique(cells), np.arange(min(16, shape[0]) * min(16, shape[1])))


def test_cells_are_ranked_by_their_mean() -> None:
    cells = np.array([[0, 0, 1], [2, 2, 2]])

    order = rank_cells(np.array([[1.0, 1.0, 5.0], [1.0, 1.0, 3.0]]), cells)

    assert order.tolist() == [1, 2, 0]
