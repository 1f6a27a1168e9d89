"""glibc's malloc, kept from holding what one large picture needed.

By default freeing a large block raises the size up to which blocks come from the heap, to 32 MiB at most; the
heap then has holes that no picture fits. With fixed thresholds large blocks go back to the kernel at once.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
MMAP_BYTES = 4 << 20  # a photo of 1 megapixel stays in the heap, whose pages are warm
TRIM_BYTES = 16 << 20


def fix_thresholds() -> bool:
    """False where the C library has no mallopt (musl, macOS)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)) and bool(mallopt(M_TRIM_THRESHOLD, TRIM_BYTES))
