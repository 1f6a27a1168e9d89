"""Mixup and CutMix: what is drawn, and what becomes of the pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from training.hyperparameters import Hyperparameters
from training.mixing import Mix, draw_mix, partners_of


def _draw(step: int, **settings: Any) -> Mix:
    mix = draw_mix(Hyperparameters(**settings), 0, step)
    assert mix is not None
    return mix


def test_off_by_default() -> None:
    assert draw_mix(Hyperparameters(), 0, 0) is None


def test_mixup_lays_pictures_over_each_other() -> None:
    mixed = Mix(share=0.25, box=None).apply(torch.full((2, 3, 4, 4), 8.0), torch.zeros(2, 3, 4, 4))

    assert torch.equal(mixed, torch.full((2, 3, 4, 4), 2.0))


def test_cutmix_puts_a_box_of_the_partner_into_the_picture() -> None:
    mixed = Mix(share=0.75, box=(0.5, 0.0, 1.0, 0.5)).apply(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))

    assert mixed.mean() == 0.25 and bool((mixed[:, :, :4, 4:] == 1).all())


@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}])
def test_shares_are_drawn_by_step_around_a_half(settings: dict[str, float]) -> None:
    mixes = [_draw(step, **settings) for step in range(2000)]

    assert _draw(7, **settings) == mixes[7]
    assert len({mix.share for mix in mixes}) == 2000
    assert 0.4 < np.mean([mix.share for mix in mixes]) < 0.7  # a box loses what is over the border
    assert all((mix.box is None) == ("mixup" in settings) for mix in mixes)


def test_share_of_a_cut_picture_is_what_the_box_leaves() -> None:
    for step in range(20):
        mix = _draw(step, cutmix=1.0)
        mixed = mix.apply(torch.zeros(1, 1, 200, 200), torch.ones(1, 1, 200, 200))

        assert 1.0 - float(mixed.mean()) == pytest.approx(mix.share, abs=0.011)


def test_with_both_on_each_has_about_half_of_the_steps() -> None:
    cut = [_draw(step, mixup=0.2, cutmix=1.0).box is not None for step in range(1000)]

    assert 430 < sum(cut) < 570


def test_small_alpha_leaves_pictures_nearly_alone() -> None:
    shares = np.array([_draw(step, mixup=0.05).share for step in range(500)])

    assert (np.minimum(shares, 1 - shares) < 0.05).mean() > 0.7


def test_partner_is_another_picture_of_the_batch() -> None:
    assert partners_of(np.array([4, 7, 9])).tolist() == [9, 4, 7]
