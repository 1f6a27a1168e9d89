"""Predictions on a GPU by torch: the only file of the server that imports it; the twin of engine_openvino.py.

Without a GPU it answers on the processor and says so, which is enough to try the image on a laptop.
"""

from __future__ import annotations

import logging
import re
import threading
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from artifact.bundle import WEIGHTS, Bundle, verify_files
from artifact.network import PixelNetwork, build_network
from artifact.predictions import log_softmax
from serving.errors import DriverError, GraphError, SettingsError

logger = logging.getLogger(__name__)

DRIVER_FILE = Path("/proc/driver/nvidia/version")
# CUDA 12's minor versions run on every driver from this one on:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
MINIMUM_DRIVER = 525
PRECISIONS = ("fp32", "bf16")


class TorchPredictor:
    """The network on the GPU, at which threads take turns."""

    def __init__(self, bundle: Bundle, *, precision: str, num_threads: int) -> None:
        if precision not in PRECISIONS:
            raise SettingsError(
                f"KENNEL_PRECISION={precision!r} is not for KENNEL_ENGINE=torch, which computes "
                f"{' or '.join(PRECISIONS)}; unset it, or serve on the processor."
            )
        self.labels = bundle.manifest.labels
        self.preprocess = bundle.manifest.preprocess
        self.precision = precision
        self._device = _find_device()
        torch.set_num_threads(num_threads)
        # fp32 means fp32: TF32 convolutions answer 1e-3 away from the trainer.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._network = _load_network(bundle).to(self._device).to(memory_format=torch.channels_last)
        self._lock = threading.Lock()

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, crop, crop, 3) RGB -> (N, num_classes) log-probabilities."""
        bf16 = self.precision == "bf16"
        with (
            self._lock,
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=bf16),
        ):
            logits = self._network(torch.from_numpy(pixels).to(self._device)).float().cpu().numpy()
        return np.asarray(log_softmax(logits), dtype=np.float32)


def native_precisions() -> frozenset[str]:
    """The precisions `auto` may choose from."""
    bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return frozenset(PRECISIONS if bf16 else ("fp32",))


def check_driver(version_text: str) -> None:
    """`version_text` is /proc/driver/nvidia/version. Raises DriverError where CUDA 12 cannot run on it."""
    found = re.search(r"\b(\d{3,4})\.\d+", version_text)
    if found and int(found[1]) < MINIMUM_DRIVER:
        raise DriverError(
            f"The host's NVIDIA driver is {found[0]}, and CUDA 12 needs {MINIMUM_DRIVER} or later. On "
            "SageMaker set InferenceAmiVersion=al2-ami-sagemaker-inference-gpu-2-1 in the endpoint "
            "configuration's variant, TransformAmiVersion=al2-ami-sagemaker-batch-gpu-535 in the transform "
            "job's resources, or choose a g6 instance."
        )


def _find_device() -> torch.device:
    if DRIVER_FILE.is_file():
        check_driver(DRIVER_FILE.read_text(encoding="utf-8"))
    if torch.cuda.is_available():
        return torch.device("cuda")
    logger.warning("no GPU is visible: answering on the processor, many times slower than serving-cpu would")
    return torch.device("cpu")


def _load_network(bundle: Bundle) -> PixelNetwork:
    """The artifact's weights in its architecture. Raises GraphError where they do not fit."""
    manifest = bundle.manifest
    path = bundle.path(WEIGHTS)
    verify_files(bundle, [WEIGHTS])
    try:
        network = build_network(
            manifest.architecture,
            len(manifest.labels),
            head_hidden=int(manifest.hyperparameters.get("head_hidden", 0)),
            dropout=float(manifest.hyperparameters.get("dropout", 0.0)),
        )
        network.load_state_dict(safetensors.torch.load_file(path))
    except (
        ValueError,
        RuntimeError,
        OSError,
        SafetensorError,
    ) as error:  # torch lists every missing tensor in a line each
        raise GraphError(f"{path} does not hold a {manifest.architecture} ({str(error)[:300]}).") from error
    return PixelNetwork(network, manifest.preprocess).eval()
