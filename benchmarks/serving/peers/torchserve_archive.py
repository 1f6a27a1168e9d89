"""A TorchServe model archive for its own image_classifier handler, from the artifact's weights.

python torchserve_archive.py MODEL_DIR OUTPUT_DIR        writes OUTPUT_DIR/network.mar
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

# The handler wants one class that can be made without arguments, in a file of its own.
MODEL_FILE = """
import torch
from torchvision.models import get_model

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = get_model({architecture!r}, weights=None, num_classes={num_classes})

    def forward(self, images):
        return self.network(images)
"""


def main(model_dir: Path, output: Path) -> None:
    """The handler's own preprocessing resizes to 256 and crops 224, as the artifacts do."""
    manifest = json.loads((model_dir / "manifest.json").read_text())
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        model_file, weights = Path(scratch) / "model.py", Path(scratch) / "network.pt"
        model_file.write_text(
            MODEL_FILE.format(architecture=manifest["architecture"], num_classes=len(manifest["labels"]))
        )
        tensors = load_file(model_dir / "weights.safetensors")
        torch.save({f"network.{name}": tensor for name, tensor in tensors.items()}, weights)
        command = [str(Path(sys.executable).parent / "torch-model-archiver"), "--model-name", "network"]
        command += ["--version", "1.0", "--model-file", str(model_file), "--serialized-file", str(weights)]
        command += ["--handler", "image_classifier", "--export-path", str(output), "--force"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
