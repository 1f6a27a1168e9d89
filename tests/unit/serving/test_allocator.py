"""Large blocks go back to the kernel, also after larger ones were freed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
# Frees a block of 30 MiB, which raises the default threshold; then one of 20 MiB with a small one on top.
PROGRAM = """
import ctypes, sys
from chaos.processes import read_resident_mib
from serving.allocator import fix_thresholds
import os
if "fixed" in sys.argv:
    assert fix_thresholds()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(30 << 20))
before = read_resident_mib({os.getpid()})
large = libc.malloc(20 << 20)
ctypes.memset(large, 1, 20 << 20)
small = libc.malloc(2000)
libc.free(large)
print(read_resident_mib({os.getpid()}) - before)
"""


def growth_mib(*arguments: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def test_large_block_goes_back_to_the_kernel_with_fixed_thresholds() -> None:
    assert growth_mib() > 15.0  # what happens otherwise
    assert growth_mib("fixed") < 5.0
