"""What is known about instance families: processor, GPU driver, local disk.

Drivers: Developer Guide, "inference-gpu-drivers" (2026). Real-time and asynchronous endpoints take a newer
one by InferenceAmiVersion, Batch Transform by TransformAmiVersion; neither is set by the service itself.
"""

from __future__ import annotations

import re

# Family -> NVIDIA driver of the host when nothing is set. g6's batch host is known; newer families' is not.
REALTIME_DRIVERS = {
    "p3": 470,
    "p4d": 470,
    "p4de": 470,
    "g4dn": 470,
    "g5": 470,
    "p5": 535,
    "g6": 535,
    "g6e": 535,
}
REALTIME_DRIVERS |= {"p5e": 550, "p5en": 550, "p6-b200": 580, "p6-b300": 580, "g7": 580, "g7e": 580}
BATCH_DRIVERS = {"p3": 470, "g4dn": 470, "g5": 470, "g6": 535, "g6e": 535}
REALTIME_AMIS = {  # driver -> its AMI; of two, the one that does not mount CUDA-compat by itself
    535: "al2-ami-sagemaker-inference-gpu-2-1",
    550: "al2-ami-sagemaker-inference-gpu-3-1",
    580: "al2023-ami-sagemaker-inference-gpu-4-1",
}
BATCH_AMIS = {535: "al2-ami-sagemaker-batch-gpu-535"}
DRIVERS_OF_CUDA = {
    11: 450,
    12: 525,
    13: 580,
}  # CUDA major version -> oldest driver (minor versions are compatible)
SERVING_GPU_CUDA = 12  # requirements/serving-gpu.in: torch 2.10.0 is the last with CUDA 12 wheels
TOO_OLD_GPUS = {"p2": "K80"}  # CUDA 12 dropped it


def family(instance_type: str) -> str:
    """`ml.g5.xlarge` and `g5.xlarge` -> `g5`."""
    return instance_type.removeprefix("ml.").split(".")[0]


def is_gpu(instance_type: str) -> bool:
    """NVIDIA GPUs; Inferentia and Trainium are not for these images."""
    return bool(re.match(r"(p\d|g\d+(dn|e)?$|gr\d|g5g$)", family(instance_type)))


def is_neuron(instance_type: str) -> bool:
    """Inferentia, Trainium or Gaudi: no image here runs on them."""
    return bool(re.match(r"(inf|trn|dl)\d", family(instance_type)))


def architecture(instance_type: str) -> str:
    """`arm64` for Graviton (and Grace), `amd64` otherwise, as image manifests call them."""
    return "arm64" if re.match(r"([cmrt]\d+g|g5g|x\d+g|p\de-gb)", family(instance_type)) else "amd64"


def has_local_disk(instance_type: str) -> bool:
    """NVMe families get no EBS volume, so no key for one either."""
    return bool(re.match(r"(g4dn|g5|g6|g7|p[3-6].*d|p5|p6|[cmr]\d+i?g?n?d)", family(instance_type)))


def serving_image(instance_type: str) -> str:
    """The image an instance type is served by."""
    return "serving-gpu" if is_gpu(instance_type) else "serving-cpu"


def realtime_ami(instance_type: str, *, cuda: int = SERVING_GPU_CUDA) -> str:
    """InferenceAmiVersion that makes the host new enough; empty where it already is, or has no GPU."""
    return _ami(instance_type, cuda, REALTIME_DRIVERS, REALTIME_AMIS)


def batch_ami(instance_type: str, *, cuda: int = SERVING_GPU_CUDA) -> str:
    """TransformAmiVersion, likewise."""
    return _ami(instance_type, cuda, BATCH_DRIVERS, BATCH_AMIS)


def newest_batch_driver(instance_type: str) -> int:
    """The newest driver a batch host of this type can have; 0 where it has no GPU or is not known."""
    default = BATCH_DRIVERS.get(family(instance_type), 0)
    return max(default, *BATCH_AMIS) if default else 0


def _ami(instance_type: str, cuda: int, drivers: dict[str, int], amis: dict[int, str]) -> str:
    needed = DRIVERS_OF_CUDA[cuda]
    if drivers.get(family(instance_type), needed) >= needed:
        return ""
    return next((name for driver, name in sorted(amis.items()) if driver >= needed), "")
