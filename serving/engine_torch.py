"""Predictions on a GPU by torch: the only file of the server that imports it; the twin of engine_openvino.py.

Without a GPU it answers on the processor and says so, which is enough to try the image on a laptop.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch.overrides import TorchFunctionMode

from artifact.bundle import WEIGHTS, Bundle, verify_files
from artifact.network import PixelNetwork, build_network
from artifact.predictions import log_softmax
from serving.batching import Batcher
from serving.errors import DriverError, GraphError, SettingsError

logger = logging.getLogger(__name__)

DRIVER_FILE = Path("/proc/driver/nvidia/version")
# CUDA 12's minor versions run on every driver from this one on:
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
MINIMUM_DRIVER = 525
PRECISIONS = ("fp32", "bf16")
MAX_BATCH = 64
TARGET_SECONDS = 0.25  # a batch is cut where its oldest picture would wait longer


class TorchPredictor:
    """The network on the GPU, for many threads at once; on the processor one at a time."""

    def __init__(self, bundle: Bundle, *, precision: str, num_threads: int) -> None:
        if precision not in PRECISIONS:
            raise SettingsError(
                f"KENNEL_PRECISION={precision!r} is not for KENNEL_ENGINE=torch, which computes "
                f"{' or '.join(PRECISIONS)}; unset it, or serve on the processor."
            )
        self.manifest = bundle.manifest
        self.labels = bundle.manifest.labels
        self.preprocess = bundle.manifest.preprocess
        self.precision = precision
        self._device = _find_device()
        torch.set_num_threads(num_threads)
        # fp32 means fp32: TF32 convolutions answer 1e-3 away from the trainer.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self._network = load_network(bundle).to(self._device).to(memory_format=torch.channels_last)
        self._lock = threading.Lock()
        self._graphs: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}
        on_gpu = self._device.type == "cuda"
        # Twice the batch: one runs while the next is decoded. The decoders release the GIL.
        self.concurrency = 2 * MAX_BATCH if on_gpu else 1
        self.max_batch = MAX_BATCH if on_gpu else 4
        self._batcher = (
            Batcher(self.run, max_batch=MAX_BATCH, target_seconds=TARGET_SECONDS) if on_gpu else None
        )

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, crop, crop, 3) RGB -> (N, num_classes) log-probabilities."""
        return self._batcher.predict(pixels) if self._batcher else self.run(pixels)

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same as one batch, at once."""
        with self._lock, torch.inference_mode():
            logits = self._compute(torch.from_numpy(pixels)).numpy()
        return np.asarray(log_softmax(logits), dtype=np.float32)

    def _compute(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cpu":
            return self._forward(pixels)
        if len(pixels) not in self._graphs:
            self._graphs[len(pixels)] = capture_graph(self._forward, pixels.to(self._device))
        return self._graphs[len(pixels)](pixels)

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        bf16 = self.precision == "bf16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=bf16):
            logits: torch.Tensor = self._network(pixels)
        return logits.float()


class TorchExplainer(TorchPredictor):
    """Predicts and explains, one picture at a time; as engine_openvino.OpenVinoExplainer."""

    def __init__(self, bundle: Bundle, *, precision: str, num_threads: int) -> None:
        super().__init__(bundle, precision=precision, num_threads=num_threads)
        self.concurrency = 1

    def explain(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(crop, crop, 3) RGB -> (num_classes,) log-probabilities and (num_classes, height, width) logits.

        The latter are the head's answers to each place's features alone: class-activation maps.
        """
        one = torch.from_numpy(pixels[np.newaxis]).to(self._device)
        with self._lock, torch.inference_mode():
            with _Averages() as averages:
                self._forward(one)
            with _Averages(split=averages.count) as averages:  # the last one is the head's
                logits = self._forward(one).cpu().numpy()
        log_probabilities = np.asarray(log_softmax(logits[:1])[0], dtype=np.float32)
        return log_probabilities, np.ascontiguousarray(logits[1:].T).reshape(-1, *averages.shape)


class _Averages(TorchFunctionMode):
    """Counts the averages over all places of a feature map; of the one numbered `split` each place too."""

    def __init__(self, split: int = 0) -> None:
        super().__init__()
        self.count = 0
        self.shape: tuple[int, int] = (0, 0)  # height, width of the feature map that was split
        self._split = split

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        """A batch of 1 becomes 1 + height x width: the average, then the places as if each were one."""
        result = function(*arguments, **(named or {}))
        if getattr(function, "__name__", "") not in ("adaptive_avg_pool2d", "avg_pool2d", "mean"):
            return result
        features = arguments[0]
        if features.ndim != 4 or features[0, 0].numel() == 1 or result[0].numel() != features.shape[1]:
            return result
        self.count += 1
        if self.count != self._split:
            return result
        self.shape = (features.shape[2], features.shape[3])
        places = features[0].flatten(1).T.reshape(-1, *result.shape[1:])
        return torch.cat([result, places])


def capture_graph(
    forward: Callable[[torch.Tensor], torch.Tensor], example: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """`forward` recorded once as a CUDA graph for one shape: a launch per batch instead of one per layer.

    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs. Transfers go through pinned memory.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # cuDNN chooses its algorithms before the recording
        for _ in range(3):
            forward(example)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = forward(example)
    host_input = torch.empty(example.shape, dtype=example.dtype, pin_memory=True)
    host_output = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)

    def replay(pixels: torch.Tensor) -> torch.Tensor:
        host_input.copy_(pixels)
        example.copy_(host_input, non_blocking=True)
        graph.replay()
        host_output.copy_(output, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return host_output.clone()

    return replay


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


def load_network(bundle: Bundle) -> PixelNetwork:
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
