"""A frozen backbone's features: those of the uncached path, computed once, shared among jobs."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess
from tests.unit.training.sessions import make_session, one_thread, same_weights, weights_of
from training import features as features_module
from training.feature_cache import FeatureCache, find_folder
from training.features import Features, collect_features, cut_head
from training.loop import train
from training.session import Session

__all__ = ["one_thread"]
FROZEN: dict[str, Any] = {"freeze_backbone": True, "feature_views": 3, "epochs": 3}


def _collect(session: Session, engine: str = "torch") -> Features | None:
    return collect_features(
        session.network,
        session.hyperparameters,
        train=session.train,
        valid=session.valid,
        device=session.device,
        bf16=session.bf16,
        world=session.world,
        engine=engine,
    )


@pytest.fixture(params=["photo", "none"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return FROZEN | {"feature_cache": str(tmp_path / "cache"), "augmentation": request.param}


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_features_are_the_heads_inputs_of_the_uncached_path(settings: dict[str, Any], engine: str) -> None:
    session = make_session(**settings)
    inputs: list[torch.Tensor] = []
    head = session.network.network.get_submodule("fc")
    hook = head.register_forward_pre_hook(lambda module, args: inputs.append(args[0].detach()))
    train(session, None)
    hook.remove()

    features = _collect(make_session(**settings), engine)

    assert features is not None and features.valid is not None
    for epoch in range(3):
        # An epoch's 6 batches are followed by the evaluation's one.
        seen = torch.cat(inputs[7 * epoch : 7 * epoch + 6])
        order = np.random.default_rng([session.hyperparameters.seed, epoch]).permutation(44)
        assert np.abs(features.of_epoch(epoch)[order] - seen.numpy()).max() <= 1e-3
    assert np.abs(features.valid - inputs[6].numpy()).max() <= 1e-3


@pytest.mark.parametrize(
    ("engine", "changes"),
    [
        ("torch", {}),
        ("openvino", {}),
        ("torch", {"head_hidden": 8, "dropout": 0.5}),
        ("torch", {"ema_decay": 0.9}),
    ],
)
def test_head_learns_the_weights_of_the_uncached_path(
    settings: dict[str, Any], engine: str, changes: dict[str, Any]
) -> None:
    uncached, cached = (make_session(**(settings | changes)) for _ in range(2))
    expected = train(uncached, None)

    progress = train(replace(cached, features=_collect(cached, engine)), None)

    for name, tensor in weights_of(uncached).items():
        assert torch.allclose(tensor, weights_of(cached)[name], rtol=0, atol=1e-4), name
    assert progress.history[-1]["validation_loss"] == pytest.approx(
        expected.history[-1]["validation_loss"], abs=1e-4
    )


def test_bf16_features_are_the_uncached_paths_bit_for_bit(tmp_path: Path) -> None:
    settings = FROZEN | {"feature_cache": str(tmp_path), "precision": "bf16", "augmentation": "none"}
    uncached, cached = (make_session(**settings) for _ in range(2))
    train(uncached, None)

    train(replace(cached, features=_collect(cached)), None)

    assert same_weights(weights_of(uncached), weights_of(cached))


def test_second_job_reuses_the_files_and_adds_the_views_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    settings = FROZEN | {"feature_cache": str(folder)}
    first = _collect(make_session(**(settings | {"epochs": 2})))
    before = {path.name for path in folder.glob("*.npy")}
    computed: list[str] = []
    compute = features_module._Extractor._compute

    def count(self: Any, *arguments: Any, what: str) -> Any:
        computed.append(what)
        return compute(self, *arguments, what=what)

    monkeypatch.setattr(features_module._Extractor, "_compute", count)

    again = _collect(make_session(**(settings | {"epochs": 2, "batch_size": 5, "learning_rate": 0.1})))
    longer = _collect(make_session(**settings))

    assert len(before) == 3  # two views and the validation split
    assert first is not None and again is not None and longer is not None
    assert all(np.array_equal(a, b) for a, b in zip(first.views, again.views, strict=True))
    assert len(longer.views) == 3 and len(computed) == 1


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"image_size": 24}, {"augmentation": "aerial"}, {"precision": "bf16"}],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_features_is_computed_anew(tmp_path: Path, change: dict[str, Any]) -> None:
    settings = FROZEN | {"feature_cache": str(tmp_path), "epochs": 1}
    _collect(make_session(**settings, valid=False))
    _collect(make_session(**(settings | change), valid=False))

    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_other_pictures_or_weights_are_computed_anew(tmp_path: Path) -> None:
    settings = FROZEN | {"feature_cache": str(tmp_path), "epochs": 1}
    session = make_session(**settings, valid=False)
    _collect(session)
    _collect(replace(session, train=replace(session.train, fingerprint="other")))
    with torch.no_grad():
        next(session.network.network.parameters()).add_(0.1)
    _collect(session)

    assert len(list(tmp_path.glob("*.npy"))) == 3


@pytest.mark.parametrize(
    "changes",
    [{"freeze_backbone": False}, {"feature_views": 0}, {"mixup": 0.2}, {"architecture": "squeezenet1_1"}],
    ids=lambda changes: next(iter(changes)),
)
def test_without_a_frozen_backbone_ending_in_its_head_nothing_is_kept(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert _collect(make_session(**(FROZEN | {"feature_cache": str(tmp_path)} | changes))) is None


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "googlenet"])
def test_head_on_the_cut_network_gives_the_networks_logits(architecture: str) -> None:
    network = PixelNetwork(build_network(architecture, 3), Preprocess(resize=64, crop=64))

    assert cut_head(network, side=64) is not None


def _cache(folder: Path, limit_bytes: int = 10**6) -> FeatureCache:
    return FeatureCache(folder=folder, limit_bytes=limit_bytes)


def _floats(value: float, count: int = 100) -> Any:
    return np.full((count, 1), value, dtype=np.float32)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY broken", b"x" * 500])
def test_broken_file_is_computed_again(tmp_path: Path, content: bytes) -> None:
    cache = _cache(tmp_path)
    cache.keep({"a": 1}, _floats(1))
    next(tmp_path.glob("*.npy")).write_bytes(content)

    found = cache.find_or_compute({"a": 1}, (100, 1), lambda: _floats(2))

    kept = cache.find({"a": 1}, (100, 1))
    assert kept is not None and np.array_equal(kept, _floats(2))
    assert np.array_equal(found, _floats(2))


def test_full_folder_loses_what_was_unused_for_longest(tmp_path: Path) -> None:
    cache = _cache(tmp_path, limit_bytes=2 * (400 + 128) + 100)
    for name in ("a", "b"):
        cache.keep({"name": name}, _floats(1))
    cache.find({"name": "a"}, (100, 1))
    cache.keep({"name": "c"}, _floats(1))

    assert [cache.find({"name": name}, (100, 1)) is not None for name in "abc"] == [True, False, True]


@pytest.mark.parametrize("folder", ["no/such/../file", "file"])
def test_folder_that_cannot_be_used_costs_nothing_but_time(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").write_text("not a folder")

    found = _cache(tmp_path / folder / "cache").find_or_compute({}, (100, 1), lambda: _floats(3))

    assert np.array_equal(found, _floats(3))


def test_larger_features_than_the_limit_stay_in_memory(tmp_path: Path) -> None:
    cache = _cache(tmp_path, limit_bytes=10)

    assert np.array_equal(cache.find_or_compute({}, (100, 1), lambda: _floats(3)), _floats(3))
    assert list(tmp_path.glob("*.npy")) == []


def _compute_slowly(folder: Path, started: Any, log: Any) -> None:
    def compute() -> Any:
        log.append("computed")
        started.set()
        return _floats(5, count=200_000)

    found = _cache(folder).find_or_compute({"shared": True}, (200_000, 1), compute)
    log.append(float(found.mean()))


def test_concurrent_jobs_compute_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        log, started = manager.list(), manager.Event()
        jobs = [context.Process(target=_compute_slowly, args=(tmp_path, started, log)) for _ in range(4)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join(60)

        assert sorted(map(str, log)) == ["5.0"] * 4 + ["computed"]


def test_folder_is_the_named_one_the_warm_pools_or_the_temporary_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.delenv("KENNEL_CACHE")
    temporary = find_folder("auto")
    monkeypatch.setenv("KENNEL_CACHE", "/own")
    own = find_folder("auto")
    monkeypatch.setenv("SAGEMAKER_MANAGED_WARMPOOL_CACHE_DIRECTORY", "/warm")

    assert temporary.parent == tmp_path
    assert [own, find_folder("auto"), find_folder("/named")] == [
        Path("/own/features"),
        Path("/warm/features"),
        Path("/named"),
    ]
