"""The fuzzer's requests are the same for the same seed, and whole ones are answered."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from chaos.mutations import CONTENT_TYPES, DAMAGES, damage, draw_query, read_seeds, wrap
from chaos.processes import read_resident_mib, read_tree
from serving.handler import Predictor, model_fn, respond
from serving.messages import JSON, Query
from tests.bundles import encode_picture, make_tiny_bundle

REPOSITORY = Path(__file__).parents[3]
SEEDS = [encode_picture(kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF")]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("fuzz") / "model")


@pytest.fixture(scope="module")
def predictor(model_dir: Path) -> Predictor:
    return model_fn(model_dir)


def test_same_seed_gives_the_same_requests() -> None:
    first, second = (
        [draw_query(SEEDS, draw) for _ in range(50)] for draw in (random.Random(3), random.Random(3))
    )

    assert first == second
    assert len(set(first)) > 40


@pytest.mark.parametrize("content_type", CONTENT_TYPES[:6])
def test_undamaged_picture_is_answered_in_every_content_type(content_type: str, predictor: Predictor) -> None:
    pixels = bytes(8 * 8 * 3 * 9)  # as .npy; 1728 bytes are raw pixels of 72 x 8 when their count is odd
    body = wrap(pixels + b"x" if "npy" in content_type else SEEDS[0], content_type)

    assert respond(Query(body, content_type, JSON), predictor).status == 200


@pytest.mark.parametrize("change", DAMAGES)
def test_every_damage_changes_a_body(change: object) -> None:
    assert callable(change)
    body = bytearray(SEEDS[0])
    draw = random.Random(0)
    for _ in range(5):
        change(body, draw)

    assert bytes(body) != SEEDS[0]


def test_empty_body_can_be_damaged() -> None:
    assert damage(b"", random.Random(0)) == b""


def test_seeds_are_the_small_files_and_some_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/small").write_bytes(b"small")
    (tmp_path / "large").write_bytes(bytes(2 << 20))

    seeds = read_seeds([tmp_path])

    assert b"small" in seeds and b"" in seeds
    assert max(map(len, seeds)) < 100


def test_own_process_and_its_child_are_found_with_their_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        tree = read_tree(os.getpid())
        child.communicate(b"\n")

    assert {os.getpid(), child.pid} <= tree
    assert child.pid not in read_tree(os.getpid())
    assert read_resident_mib({os.getpid()}) > 10.0


@pytest.mark.filterwarnings("ignore")  # Pillow warns of much that is in there
def test_a_thousand_hostile_requests_get_no_500(predictor: Predictor) -> None:
    draw = random.Random(11)

    statuses = Counter(respond(draw_query(SEEDS, draw), predictor).status for _ in range(1000))

    assert set(statuses) <= {200, 400, 406, 413, 415}
    assert statuses[200] > 50 and statuses[400] > 200


@pytest.mark.parametrize("guided", [[], ["--guided"]], ids=["random", "guided"])
def test_fuzzer_reports_what_became_of_every_body(guided: list[str], model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "seed.jpg").write_bytes(SEEDS[0])

    done = subprocess.run(
        [
            *(sys.executable, "-m", "chaos.fuzz_codec", "--model", str(model_dir), "--seeds", str(tmp_path)),
            *("--bodies", "200", *guided),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    report = json.loads(done.stdout.splitlines()[-1])
    assert report["bodies"] == sum(report["statuses"].values()) == 200
    assert report["bad_answers"] == report["worker_deaths"] == 0
