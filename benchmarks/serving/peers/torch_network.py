"""What every torch peer shares: the artifact's weights in torchvision's network, and the usual preprocessing.

Runs in the peers' own environments: nothing of Kennel is imported.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision import transforms
from torchvision.models import get_model

TOP = 5


class Classifier:
    """The network in eager mode, as tutorials have it."""

    def __init__(self, model_dir: Path | None = None) -> None:
        """From `model_dir`, or MODEL_DIR of the environment; TORCH_THREADS is what one process may use."""
        torch.set_num_threads(int(os.environ.get("TORCH_THREADS", "1")))
        model_dir = model_dir or Path(os.environ["MODEL_DIR"])
        manifest = json.loads((model_dir / "manifest.json").read_text())
        self.labels: list[str] = manifest["labels"]
        self.network = get_model(manifest["architecture"], weights=None, num_classes=len(self.labels))
        self.network.load_state_dict(load_file(model_dir / "weights.safetensors"))
        self.network.eval()
        preprocess = manifest["preprocess"]
        self.transform = transforms.Compose(
            [
                transforms.Resize(preprocess["resize"]),
                transforms.CenterCrop(preprocess["crop"]),
                transforms.ToTensor(),
                transforms.Normalize(preprocess["mean"], preprocess["std"]),
            ]
        )

    def classify(self, body: bytes) -> dict[str, float]:
        """The likeliest labels of an encoded picture with their probabilities."""
        return self.classify_image(Image.open(io.BytesIO(body)))

    def classify_image(self, image: Image.Image) -> dict[str, float]:
        """As `classify`, of an opened picture."""
        pixels = self.transform(image.convert("RGB"))[None]  # (1, 3, 224, 224)
        with torch.inference_mode():
            probabilities = torch.softmax(self.network(pixels)[0], dim=0)
        top = probabilities.topk(TOP)
        return {
            self.labels[index]: value
            for index, value in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        }
