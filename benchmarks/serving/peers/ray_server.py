"""Ray Serve with one replica per core."""

from __future__ import annotations

import os
import signal

import ray
from ray import serve
from starlette.requests import Request
from torch_network import Classifier

WORKERS = int(os.environ["WORKERS"])


@serve.deployment(num_replicas=WORKERS, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=4)
class ImageDeployment:
    """One model a replica."""

    def __init__(self) -> None:
        self.model = Classifier()

    async def __call__(self, request: Request) -> dict[str, float]:
        """One picture -> its top labels."""
        return self.model.classify(await request.body())


if __name__ == "__main__":
    ray.init(
        num_cpus=WORKERS, include_dashboard=False, configure_logging=False, _temp_dir=os.environ["RAY_FOLDER"]
    )
    serve.start(
        proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])}
    )
    serve.run(ImageDeployment.bind(), route_prefix="/classify")
    signal.pause()
