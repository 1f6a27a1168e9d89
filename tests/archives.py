"""Zip files of pictures, and what was unpacked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path


def zip_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


def image_zip(root: str = "dogImages/", folders: tuple[str, ...] = ("train", "valid", "test")) -> bytes:
    return zip_bytes({f"{root}{folder}/001.Affenpinscher/a.jpg": folder.encode() for folder in folders})


def names_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
