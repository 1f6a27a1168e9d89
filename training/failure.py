"""What went wrong, in a sentence that names the cause: the job's FailureReason."""

from __future__ import annotations

import errno

import torch

from training.job import JobError

# How libraries say it who raise something else than MemoryError: torch's allocator on processors
# (c10/core/impl/alloc_cpu.cpp), C++, the kernel, the dynamic linker, Python's threads.
NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "bad_alloc",
    "Cannot allocate memory",
    "failed to map segment",
    "can't start new thread",
)


def explain(error: BaseException) -> str:
    """Its own words where it is ours; what to do about it where the machine was too small."""
    if isinstance(error, JobError):
        return str(error)
    said = " ".join(f"{type(error).__name__}: {error}".split())
    if is_out_of_memory(error):
        return f"Out of memory: lower batch_size or image_size, or take a machine with more. {said[:400]}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" for {error.filename}" if error.filename else ""
        return f"No space left on the disk{where}: give the job a larger volume (volume_gb). {said[:400]}"
    return said


def is_out_of_memory(error: BaseException) -> bool:
    """Of the processor's memory or of a GPU's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in NO_MEMORY)
