"""Augmentation keeps pictures pictures, and follows from seed, epoch and picture alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from training.augment import Draws, augment
from training.hyperparameters import AUGMENTATIONS

SIDE = 24


def _noise(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def _copies(picture: NDArray[Any], count: int) -> NDArray[np.uint8]:
    return np.repeat(picture[None].astype(np.uint8), count, axis=0)


def _draws(*images: int, seed: int = 0, epoch: int = 0) -> Draws:
    return Draws(seed=seed, epoch=epoch, images=np.asarray(images, dtype=np.int64))


def test_draws_are_uniform_and_unrelated() -> None:
    draws = _draws(*range(20_000))

    first, second = draws.uniform(0), draws.uniform(1)

    assert 0.0 <= first.min() < 0.001 and 0.999 < first.max() < 1.0
    assert np.abs(np.histogram(first, bins=10, range=(0, 1))[0] - 2000).max() < 200
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.03
    assert set(draws.integers(2, -1, 2).tolist()) == {-1, 0, 1}


@pytest.mark.parametrize("changes", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_draws_anew(changes: dict[str, int]) -> None:
    assert not np.isin(_draws(1, 2, 3).uniform(0), _draws(1, 2, 3, **changes).uniform(0)).any()


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_picture_is_augmented_alike_in_whatever_batch_it_comes(augmentation: str) -> None:
    pixels = _noise(6)

    whole = augment(pixels, augmentation, 16, _draws(0, 1, 2, 3, 4, 5))
    parts = [augment(pixels, augmentation, 16, _draws(*images)) for images in ([5, 1], [3])]

    assert whole.shape == (6, 16, 16, 3)
    assert np.array_equal(parts[0], whole[[5, 1]])
    assert np.array_equal(parts[1], whole[[3]])


@pytest.mark.parametrize("augmentation", ["photo", "aerial"])
def test_images_of_a_batch_are_drawn_apart(augmentation: str) -> None:
    augmented = augment(_copies(_noise(1)[0], 8), augmentation, 16, _draws(*range(8)))

    assert len({image.tobytes() for image in augmented}) > 4


def test_none_is_the_centre_crop() -> None:
    pixels = _noise(1)

    assert np.array_equal(augment(pixels, "none", 16, _draws(0)), pixels[:, 4:20, 4:20])


@pytest.mark.parametrize("augmentation", ["photo", "aerial"])
def test_constant_picture_stays_constant(augmentation: str) -> None:
    pixels = np.full((4, SIDE, SIDE, 3), 77, dtype=np.uint8)

    assert (augment(pixels, augmentation, 20, _draws(*range(4))) == 77).all()


def test_aerial_moves_pixels_without_changing_their_values() -> None:
    picture = _noise(1)[0]

    augmented = augment(_copies(picture, 16), "aerial", SIDE, _draws(*range(16)))

    assert set(map(tuple, augmented.reshape(-1, 3))) <= set(map(tuple, picture.reshape(-1, 3)))


def test_aerial_reaches_all_eight_symmetries() -> None:
    # Shifts move single pixels away, so follow four quadrants of one value each.
    picture = np.zeros((SIDE, SIDE, 3))
    half = SIDE // 2
    picture[:half, half:], picture[half:, :half], picture[half:, half:] = 1, 2, 3

    augmented = augment(_copies(picture, 200), "aerial", SIDE, _draws(*range(200)))

    corners = augmented[:, [3, 3, -4, -4], [3, -4, 3, -4], 0]
    assert len({tuple(row.tolist()) for row in corners}) == 8


def test_photo_mirrors_half_of_the_images() -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, SIDE)[None, :, None], (SIDE, SIDE, 3))

    augmented = augment(_copies(ramp, 400), "photo", 16, _draws(*range(400)))

    mirrored = (augmented[:, 0, 0, 0] > augmented[:, 0, -1, 0]).mean()
    assert 0.4 < mirrored < 0.6


def test_photo_keeps_at_least_the_stated_share_of_the_picture() -> None:
    # Rows and columns number themselves: the range that is left tells how much of the picture is.
    ramp = np.linspace(0, 255, SIDE)
    picture = np.zeros((SIDE, SIDE, 3))
    picture[..., 0], picture[..., 1] = ramp[None, :], ramp[:, None]

    augmented = augment(_copies(picture, 200), "photo", 16, _draws(*range(200))).astype(float)

    spans = [np.ptp(augmented[..., channel], axis=(1, 2)) / 255 for channel in (0, 1)]
    areas = spans[0] * spans[1]
    assert areas.min() > 0.25 and areas.max() > 0.8
