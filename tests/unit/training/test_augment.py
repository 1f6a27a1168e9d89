"""Augmentation keeps pictures pictures, and is drawn from the generator alone."""

from __future__ import annotations

import pytest
import torch

from training.augment import Draws, augment
from training.hyperparameters import AUGMENTATIONS

SIDE = 24


def _generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draws(batch_size: int, share: slice = slice(None)) -> Draws:
    return Draws(_generator(), batch_size, share)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_same_generator_gives_the_same_images(augmentation: str) -> None:
    images = torch.rand(5, 3, SIDE, SIDE, generator=_generator())

    first = augment(images, augmentation, 16, _draws(5))
    torch.manual_seed(99)  # the global generator must not matter
    second = augment(images, augmentation, 16, _draws(5))

    assert first.shape == (5, 3, 16, 16)
    assert torch.equal(first, second)


@pytest.mark.parametrize("augmentation", ["photo", "aerial"])
def test_images_of_a_batch_are_drawn_apart(augmentation: str) -> None:
    picture = torch.rand(1, 3, SIDE, SIDE, generator=_generator())

    augmented = augment(picture.repeat(8, 1, 1, 1), augmentation, 16, _draws(8))

    assert len({image.numpy().tobytes() for image in augmented}) > 4


def test_none_is_the_centre_crop() -> None:
    images = torch.arange(3.0 * 6 * 6).reshape(1, 3, 6, 6)

    assert torch.equal(augment(images, "none", 4, _draws(1)), images[:, :, 1:5, 1:5])


@pytest.mark.parametrize("augmentation", ["photo", "aerial"])
def test_constant_picture_stays_constant(augmentation: str) -> None:
    images = torch.full((4, 3, SIDE, SIDE), 0.25)

    assert torch.allclose(augment(images, augmentation, 20, _draws(4)), torch.tensor(0.25))


def test_aerial_moves_pixels_without_changing_their_values() -> None:
    picture = torch.rand(1, 3, SIDE, SIDE, generator=_generator())

    augmented = augment(picture.repeat(16, 1, 1, 1), "aerial", SIDE, _draws(16))

    assert set(augmented.flatten().tolist()) <= set(picture.flatten().tolist())


def test_aerial_reaches_all_eight_symmetries() -> None:
    # Shifts move single pixels away, so follow four quadrants of one value each.
    picture = torch.zeros(1, 3, SIDE, SIDE)
    half = SIDE // 2
    picture[..., :half, half:], picture[..., half:, :half], picture[..., half:, half:] = 1.0, 2.0, 3.0

    augmented = augment(picture.repeat(200, 1, 1, 1), "aerial", SIDE, _draws(200))

    corners = augmented[:, 0, [3, 3, -4, -4], [3, -4, 3, -4]]
    assert len({tuple(row.tolist()) for row in corners}) == 8


def test_photo_mirrors_half_of_the_images() -> None:
    ramp = torch.linspace(0, 1, SIDE).expand(400, 3, SIDE, SIDE)

    augmented = augment(ramp, "photo", 16, _draws(400))

    mirrored = (augmented[:, 0, 0, 0] > augmented[:, 0, 0, -1]).float().mean()
    assert 0.4 < float(mirrored) < 0.6


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_shares_of_a_batch_are_augmented_like_the_whole(augmentation: str) -> None:
    images = torch.rand(5, 3, SIDE, SIDE, generator=_generator())
    shares = [slice(0, None, 2), slice(1, None, 2)]

    whole = augment(images, augmentation, 16, _draws(5))

    for share in shares:
        assert torch.equal(augment(images[share], augmentation, 16, _draws(5, share)), whole[share])
