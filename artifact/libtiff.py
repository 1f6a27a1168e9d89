"""libtiff itself writes to stderr, up to hundreds of lines an odd file; Pillow's logger has no say there."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from pathlib import Path

SILENT: Mapping[str, int | None] = {"TIFFSetErrorHandler": None, "TIFFSetWarningHandler": None}


def set_libtiff_handlers(handlers: Mapping[str, int | None] = SILENT) -> dict[str, int | None]:
    """Set C functions by address, None for silence, in Pillow's own libtiff; returns what was set before."""
    maps = Path("/proc/self/maps")
    loaded = re.search(r"/\S*libtiff\S*", maps.read_text()) if maps.exists() else None
    if loaded is None:
        return {}
    library = ctypes.CDLL(loaded[0])
    previous: dict[str, int | None] = {}
    for name, handler in handlers.items():
        set_handler = getattr(library, name)
        set_handler.restype, set_handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        previous[name] = set_handler(handler)
    return previous
