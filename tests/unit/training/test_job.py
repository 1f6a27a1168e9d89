"""/opt/ml under any prefix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.small_disk import disk_of, fill
from training.job import (
    FAILURE_CHARACTERS,
    JobError,
    find_splits,
    read_job,
    release_failure,
    reserve_failure,
    write_failure,
)


def _prefix(tmp_path: Path, *channels: str, **config: object) -> Path:
    (tmp_path / "input/config").mkdir(parents=True)
    for channel in channels:
        (tmp_path / "input/data" / channel).mkdir(parents=True)
    for name, content in config.items():
        (tmp_path / "input/config" / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_job_without_config_files_has_defaults(tmp_path: Path) -> None:
    job = read_job(_prefix(tmp_path, "train"))

    assert job.hosts == ("algo-1",)
    assert job.checkpoint_dir == tmp_path / "checkpoints"
    assert (job.model_dir, job.failure_path) == (tmp_path / "model", tmp_path / "output/failure")


def test_checkpoint_path_of_the_job_is_kept(tmp_path: Path) -> None:
    job = read_job(_prefix(tmp_path, "train", checkpointconfig={"S3Uri": "s3://b/c", "LocalPath": "/ck"}))

    assert job.checkpoint_dir == Path("/ck")


@pytest.mark.parametrize("name", ["valid", "validation", "val"])
def test_validation_channel_has_three_names(tmp_path: Path, name: str) -> None:
    splits = find_splits(read_job(_prefix(tmp_path, "train", name)).channels)

    assert splits["valid"].name == name


@pytest.mark.parametrize("channel", ["training", "train", "data"])
def test_one_channel_may_hold_all_splits(tmp_path: Path, channel: str) -> None:
    prefix = _prefix(tmp_path, f"{channel}/train/cat", f"{channel}/valid/cat", f"{channel}/test/cat")

    splits = find_splits(read_job(prefix).channels)

    assert {split: path.name for split, path in splits.items()} == {s: s for s in ("train", "valid", "test")}


def test_job_without_training_data_says_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="channels found: test"):
        find_splits(read_job(_prefix(tmp_path, "test")).channels)


HOSTS = {"current_host": "algo-2", "hosts": ["algo-2", "algo-1"], "network_interface_name": "eth0"}


def test_hosts_are_in_the_same_order_everywhere(tmp_path: Path) -> None:
    job = read_job(_prefix(tmp_path, "train", resourceconfig=HOSTS))

    assert (job.current_host, job.hosts) == ("algo-2", ("algo-1", "algo-2"))
    assert job.network_interface == "eth0"


def test_host_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="current_host='algo-3' is not among"):
        read_job(_prefix(tmp_path, "train", resourceconfig=HOSTS | {"current_host": "algo-3"}))


def test_sharded_channel_is_refused_for_several_hosts_only(tmp_path: Path) -> None:
    sharded = {"valid": {"S3DistributionType": "ShardedByS3Key"}}

    with pytest.raises(JobError, match=r"Channel valid is ShardedByS3Key.*use FullyReplicated"):
        read_job(_prefix(tmp_path / "two", resourceconfig=HOSTS, inputdataconfig=sharded))

    assert read_job(_prefix(tmp_path / "one", inputdataconfig=sharded)).hosts == ("algo-1",)


def test_first_failure_is_the_one_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "output/failure"

    write_failure(path, "the cause" + "." * 2000)
    write_failure(path, "a consequence")

    assert path.read_text().startswith("the cause") and len(path.read_text()) == FAILURE_CHARACTERS


def test_broken_config_file_is_named(tmp_path: Path) -> None:
    prefix = _prefix(tmp_path, "train")
    (prefix / "input/config/hyperparameters.json").write_text("{")

    with pytest.raises(JobError, match=r"hyperparameters\.json is not JSON"):
        read_job(prefix)


def test_full_disk_has_room_for_the_failure_and_nothing_else_is_left(tmp_path: Path) -> None:
    with disk_of(64, tmp_path / "disk"):
        path = tmp_path / "disk/output/failure"
        reserve_failure(path)
        fill(tmp_path / "disk/ballast")

        write_failure(path, "no space" + "." * 2000)
        release_failure(path)

        assert path.read_text().startswith("no space") and len(path.read_text()) == FAILURE_CHARACTERS
        assert list(path.parent.iterdir()) == [path]


def test_failure_of_an_earlier_job_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "output/failure"
    write_failure(path, "earlier")

    reserve_failure(path)
    release_failure(path)

    assert list(path.parent.iterdir()) == []
