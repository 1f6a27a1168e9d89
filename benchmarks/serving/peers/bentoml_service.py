"""BentoML with one worker process per core; the picture is the request's body (a root input).

bentoml serve bentoml_service:ImageService
"""

from __future__ import annotations

import os

import bentoml
from PIL.Image import Image
from torch_network import Classifier


@bentoml.service(workers=int(os.environ["WORKERS"]))
class ImageService:
    """One model a worker."""

    def __init__(self) -> None:
        self.model = Classifier()

    @bentoml.api
    def classify(self, image: Image, /) -> dict[str, float]:
        """One picture -> its top labels."""
        return self.model.classify_image(image)
