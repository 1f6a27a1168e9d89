"""LitServe with one worker process per core; pictures come as base64 in JSON, as its image examples do."""

from __future__ import annotations

import base64
import os

import litserve
from torch_network import Classifier


class ImageApi(litserve.LitAPI):
    """The library's four steps."""

    def setup(self, device: str) -> None:
        self.model = Classifier()

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["image"])

    def predict(self, body: bytes) -> dict[str, float]:
        return self.model.classify(body)

    def encode_response(self, prediction: dict[str, float]) -> dict[str, float]:
        return prediction


if __name__ == "__main__":
    server = litserve.LitServer(
        ImageApi(), accelerator="cpu", devices=1, workers_per_device=int(os.environ["WORKERS"])
    )
    server.run(
        host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning"
    )
