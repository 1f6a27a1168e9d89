"""What the failure file says of errors that are not ours."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.failure import explain
from training.job import JobError


def _fail_to_allocate() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def _fail_to_write() -> None:
    with Path("/dev/full").open("w") as file:
        file.write("x" * 100_000)


@pytest.mark.parametrize(
    ("fail", "sentence"),
    [
        pytest.param(_fail_to_allocate, "Out of memory: lower batch_size", id="torch's allocator"),
        pytest.param(_fail_to_write, "No space left on the disk: give the job a larger volume", id="disk"),
    ],
)
def test_cause_is_named_first_and_what_to_do(fail: Callable[[], None], sentence: str) -> None:
    with pytest.raises((RuntimeError, OSError)) as raised:
        fail()

    assert explain(raised.value).startswith(sentence)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (JobError("as we said it"), "as we said it"),
        (MemoryError(), "Out of memory: lower batch_size or image_size, or take a machine with more."),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "Out of memory: "),
        (ImportError("libx.so: failed to map segment from shared object"), "Out of memory: "),
        (OSError(errno.ENOSPC, "No space left on device", "/m/a.bin"), "No space left on the disk for /m/a"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_error_is_explained(error: BaseException, sentence: str) -> None:
    assert explain(error).startswith(sentence)
