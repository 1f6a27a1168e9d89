"""Unpack and verify a downloaded model.tar.gz: an init container's work, in the serving image.

usage: python unpack_model.py model.tar.gz DIRECTORY
"""

import sys
from pathlib import Path

from artifact.bundle import BundleError, read_bundle, unpack_artifact

archive, directory = map(Path, sys.argv[1:])
try:
    unpack_artifact(archive, directory)
    read_bundle(directory)
except BundleError as error:
    sys.exit(f"Kennel cannot use the model: {error}")
archive.unlink()  # the pod's disk would hold it as long as the pod lives
