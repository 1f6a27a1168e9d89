"""The same bytes, and the same picture in other bytes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from training.doctor.duplicates import (
    MAX_BUCKET,
    MAX_DISTANCE,
    Pair,
    find_exact_duplicates,
    find_near_duplicates,
    near_hashes,
    order_by_certainty,
    stack_signatures,
)
from training.doctor.files import FileFacts, examine, examine_bytes, perceptual_hash


def draw_picture(seed: int, side: int = 128) -> Image.Image:
    """Smooth coloured noise: like no other seed's."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def encode(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def facts_of(image: Image.Image, *, quality: int = 90, split: str = "train", label: str = "a") -> FileFacts:
    return replace(examine_bytes(encode(image, quality)), split=split, label=label)


@pytest.fixture(scope="module")
def crowd() -> list[FileFacts]:
    """Sixty different pictures."""
    return [facts_of(draw_picture(seed)) for seed in range(60)]


def test_equal_bytes_are_grouped_and_empty_files_are_not(tmp_path: Path) -> None:
    for label, bodies in {"a": (b"x", b"y", b""), "b": (b"x", b"z", b"")}.items():
        (tmp_path / label).mkdir()
        for number, body in enumerate(bodies):
            (tmp_path / label / f"{number}.jpg").write_bytes(body)
    facts = examine(tmp_path)

    groups = [[facts[index].path for index in group] for group in find_exact_duplicates(facts)]

    assert groups == [["a/0.jpg", "b/0.jpg"]]


CHANGES: list[tuple[Callable[[Image.Image], Image.Image], int, bool]] = [
    pytest.param(lambda image: image, 40, False, id="quality 40"),  # type: ignore[list-item]
    pytest.param(lambda image: image.resize((90, 90)), 90, False, id="resized"),  # type: ignore[list-item]
    pytest.param(lambda image: image.resize((200, 100)), 90, False, id="squashed"),  # type: ignore[list-item]
    pytest.param(lambda image: image.crop((3, 3, 125, 125)), 90, False, id="cropped"),  # type: ignore[list-item]
    pytest.param(lambda image: ImageEnhance.Color(image).enhance(0.8), 90, False, id="paler"),  # type: ignore[list-item]
    pytest.param(ImageOps.mirror, 90, True, id="mirrored"),  # type: ignore[list-item]
    pytest.param(  # type: ignore[list-item]
        lambda image: ImageOps.mirror(image).crop((3, 3, 125, 125)).resize((80, 80)), 60, True, id="all of it"
    ),
]


@pytest.mark.parametrize(("change", "quality", "mirrored"), CHANGES)
def test_changed_copy_is_found_and_nothing_else(
    crowd: list[FileFacts], change: Callable[[Image.Image], Image.Image], quality: int, mirrored: bool
) -> None:
    copies = [facts_of(change(draw_picture(seed)), quality=quality) for seed in range(20)]

    pairs = find_near_duplicates([*crowd, *copies])

    assert [(pair.first, pair.second, pair.mirrored) for pair in pairs] == [
        (seed, 60 + seed, mirrored) for seed in range(20)
    ]
    assert all(pair.distance <= MAX_DISTANCE and pair.correlation > 0.93 for pair in pairs)


def test_different_pictures_do_not_pair(crowd: list[FileFacts]) -> None:
    assert find_near_duplicates(crowd) == []


def test_byte_identical_files_are_no_near_pair(crowd: list[FileFacts]) -> None:
    assert find_near_duplicates([crowd[0], crowd[0], crowd[1]]) == []


def test_near_copy_pairs_once_with_each_split_of_byte_identical_files() -> None:
    original, copy = draw_picture(1), facts_of(draw_picture(1), quality=50, split="valid")
    facts = [
        facts_of(original),
        facts_of(original),
        facts_of(original, split="test"),
        facts_of(original, label="b"),
        copy,
    ]

    pairs = find_near_duplicates(facts)

    assert [(pair.first, pair.second) for pair in pairs] == [(0, 4), (2, 4), (3, 4)]


def test_symmetric_picture_is_not_called_mirrored() -> None:
    half = draw_picture(3)
    symmetric = Image.new("RGB", (256, 128))
    symmetric.paste(half, (0, 0))
    symmetric.paste(ImageOps.mirror(half), (128, 0))

    [pair] = find_near_duplicates([facts_of(symmetric), facts_of(symmetric, quality=50)])

    assert not pair.mirrored


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(lambda rng, seed: np.full((64, 64), 100 + seed, dtype=np.uint8), id="one colour each"),
        pytest.param(
            lambda rng, seed: rng.normal(120, 1.5, (64, 64)).clip(0, 255).astype(np.uint8), id="faint noise"
        ),
        pytest.param(lambda rng, seed: rng.integers(90, 150, (64, 64), dtype=np.uint8), id="grass"),
    ],
)
def test_uniform_pictures_do_not_pair(draw: Callable[[np.random.Generator, int], np.ndarray]) -> None:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    facts = [facts_of(Image.fromarray(draw(rng, seed))) for seed in range(50)]

    assert find_near_duplicates(facts) == []


def test_smooth_gradients_of_other_directions_do_not_pair() -> None:
    down, across = np.mgrid[:64, :64] * 3.0
    pictures = [np.cos(turn) * down + np.sin(turn) * across for turn in np.linspace(0, np.pi / 2, 5)]
    facts = [facts_of(Image.fromarray(picture.clip(0, 255).astype(np.uint8))) for picture in pictures]

    assert find_near_duplicates(facts) == []


def test_drawn_shapes_that_match_but_for_their_colours_do_not_pair() -> None:
    pictures = []
    for colour in ("red", "gold", "navy", "white"):
        picture = Image.new("RGB", (96, 96), "teal")
        ImageDraw.Draw(picture).ellipse((20, 30, 70, 80), fill=colour)
        pictures.append(facts_of(picture))

    assert find_near_duplicates(pictures) == []


def test_demo_images_do_not_pair(shapes: Path) -> None:
    facts = examine(shapes)

    assert find_near_duplicates(facts) == []


@pytest.mark.parametrize("num_facts", [pytest.param(0, id="none"), pytest.param(1, id="one")])
def test_too_few_files_have_no_pairs(crowd: list[FileFacts], num_facts: int) -> None:
    assert find_near_duplicates(crowd[:num_facts]) == []


def test_unreadable_files_do_not_pair() -> None:
    assert find_near_duplicates([examine_bytes(b"one"), examine_bytes(b"two")]) == []


def random_facts(num_facts: int, seed: int = 0) -> list[FileFacts]:
    """Facts of smooth noise that never was a file."""
    template = facts_of(draw_picture(0))
    rng = np.random.default_rng(seed)
    waves = np.cos(np.pi * np.arange(10)[:, None] * (2 * np.arange(32) + 1) / 64)
    sizes = 1 / (1 + np.hypot(*np.mgrid[:10, :10]))
    small = waves.T @ (rng.standard_normal((num_facts, 10, 10)) * sizes) @ waves
    small = (128 + 30 * (small - small.mean((1, 2), keepdims=True)) / small.std((1, 2), keepdims=True)).clip(
        0, 255
    )
    return [
        replace(
            template,
            sha256=f"{number:064x}",
            hash=perceptual_hash(picture),
            mirrored_hash=perceptual_hash(picture[:, ::-1]),
            signature=picture.astype(np.uint8).tobytes(),
        )
        for number, picture in enumerate(small.astype(np.float32))
    ]


def test_hash_search_agrees_with_comparing_all() -> None:
    """Copies with some of their least certain bits turned, among 3000."""
    facts = random_facts(3000)
    hashes = np.array([file.hash for file in facts], dtype=np.uint64)
    order = order_by_certainty(stack_signatures(facts))
    rng = np.random.default_rng(1)
    for copy in range(1500, 1700):
        turned = rng.permutation(order[copy - 1500][:12])[: rng.integers(0, 9)]
        hashes[copy] = hashes[copy - 1500] ^ np.bitwise_or.reduce(np.uint64(1) << turned.astype(np.uint64))
    order[1500:1700] = order[:200]

    found = set()
    for first, second in near_hashes(hashes, hashes, order):
        assert (np.bitwise_count(hashes[first] ^ hashes[second]) <= MAX_DISTANCE).all()
        found |= {(min(pair), max(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)}

    planted = {(copy - 1500, copy) for copy in range(1500, 1700)}
    assert len(planted & found) >= 198


def test_crowd_of_equal_pictures_is_searched_in_bounded_time() -> None:
    """Frames of a still camera: each is paired, not all with all."""
    [frame] = random_facts(1)
    facts = [replace(frame, sha256=f"{number:064x}") for number in range(4 * MAX_BUCKET)]
    started = time.monotonic()

    pairs = find_near_duplicates(facts)

    assert time.monotonic() - started < 20
    assert {index for pair in pairs for index in (pair.first, pair.second)} == set(range(len(facts)))
    assert len(pairs) <= len(facts) * MAX_BUCKET


def test_pairs_are_sorted_and_name_the_first_file_first() -> None:
    pictures = [draw_picture(seed) for seed in (1, 2, 2, 1)]
    facts = [
        facts_of(picture, quality=quality)
        for picture, quality in zip(pictures, (90, 90, 60, 60), strict=True)
    ]

    pairs: list[Pair] = find_near_duplicates(facts)

    assert [(pair.first, pair.second) for pair in pairs] == [(0, 3), (1, 2)]


@pytest.mark.real_images
def test_real_tiles_that_look_alike_do_not_pair(real_images: Path) -> None:
    facts = examine(real_images / "hurricane" / "valid")

    pairs = find_near_duplicates(facts)

    assert find_exact_duplicates(facts) == []
    assert [facts[pair.first].path for pair in pairs] == ["no_damage/-96.96039_28.782992.jpeg"]  # a long roof


@pytest.mark.real_images
def test_tiles_cut_a_metre_apart_are_found_across_splits(real_images: Path, tmp_path: Path) -> None:
    same_place = {
        "train/no_damage/-95.271378_29.605597999999997.jpeg": "valid/no_damage/-95.271385_29.6056.jpeg",
        "train/no_damage/-95.096397_29.808393.jpeg": "valid/no_damage/-95.09640300000001_29.808393.jpeg",
    }
    for path in [*same_place, *same_place.values()]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((real_images / "hurricane" / path).read_bytes())
    facts = examine(tmp_path)

    found = {
        frozenset((facts[pair.first].path, facts[pair.second].path)) for pair in find_near_duplicates(facts)
    }

    assert found == {frozenset(pair) for pair in same_place.items()}
