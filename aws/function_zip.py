"""The Lambda function's archive: handler.py, and serving-cpu's Pillow as Lambda's Python takes it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from aws.function import RUNTIME
from aws.steps import PlanError

REPOSITORY = Path(__file__).resolve().parents[1]
HANDLER = Path(__file__).with_name("lambda_function") / "handler.py"
LOCK = REPOSITORY / "requirements" / "serving-cpu.txt"
BUILD = REPOSITORY / "build" / "function"
MAX_ZIP_BYTES = 50 * 1024 * 1024  # CreateFunction, direct upload
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip knows no earlier time


def archive_path() -> Path:
    """Where the archive lies or will lie; its name is a function of what goes into it. Nothing is built."""
    content = HANDLER.read_text() + read_pin() + RUNTIME
    return BUILD / f"function-{hashlib.sha256(content.encode()).hexdigest()[:12]}.zip"


def build_archive() -> Path:
    """The archive, built if it is not there: downloads Pillow's wheel for Lambda through pip."""
    path = archive_path()
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        install_pillow(Path(folder))
        partial = Path(folder) / path.name
        write_zip(partial, [Path(folder) / "packages"])
        partial.replace(path)
    return path


def install_pillow(folder: Path) -> None:
    """Pillow of the lock, by hash, as Amazon Linux runs it, into folder/packages. Raises PlanError."""
    pin = folder / "pillow.txt"
    pin.write_text(read_pin())
    version = RUNTIME.removeprefix("python")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64"]
    command += ["--platform", "manylinux2014_x86_64", "--python-version", version]
    command += ["--target", str(folder / "packages"), "--requirement", str(pin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PlanError(f"Pillow for {RUNTIME} could not be fetched: {done.stderr.strip()[-300:]}")


def write_zip(path: Path, folders: list[Path]) -> None:
    """handler.py and the folders' contents, in order and without times: same input, same archive."""
    files = {"handler.py": HANDLER} | {
        file.relative_to(folder).as_posix(): file
        for folder in folders
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts and not file.parts[-2].endswith(".dist-info")
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(files.items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16  # readable for the user that Lambda runs it as
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    if path.stat().st_size > MAX_ZIP_BYTES:
        raise PlanError(f"{path} has {path.stat().st_size} bytes; Lambda takes {MAX_ZIP_BYTES} this way.")


def read_pin() -> str:
    """Pillow's entry of the lock: `pillow==X` and its hashes."""
    found = re.search(r"^pillow==.*(?:\n    --hash=.*)+", LOCK.read_text(), re.MULTILINE)
    if not found:
        raise PlanError(f"{LOCK.name} has no hashed pillow; run make lock.")
    return found[0].rstrip().rstrip("\\") + "\n"
