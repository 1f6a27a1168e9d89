"""The artifact's weights as a torch network, which attribution methods look into."""

from __future__ import annotations

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from artifact.bundle import WEIGHTS, Bundle
from artifact.network import PixelNetwork, build_network


class ExplainError(ValueError):
    """It cannot be explained; the message says why and what to do."""


def load_network(bundle: Bundle) -> PixelNetwork:
    """The network that was exported, in evaluation mode. Raises ExplainError where the weights do not fit."""
    manifest = bundle.manifest
    path = bundle.path(WEIGHTS)
    try:
        network = build_network(
            manifest.architecture,
            len(manifest.labels),
            head_hidden=int(manifest.hyperparameters.get("head_hidden", 0)),
            dropout=float(manifest.hyperparameters.get("dropout", 0.0)),
        )
        network.load_state_dict(safetensors.torch.load_file(path))
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise ExplainError(
            f"{path} does not hold a {manifest.architecture} ({str(error)[:300]}); export the model again."
        ) from error
    _keep_activations(network)
    return PixelNetwork(network, manifest.preprocess).eval()


def find_feature_layer(network: nn.Module, images: Tensor) -> nn.Module:
    """The layer whose (N, channels, h, w) output, h x w > 1, is the last before the head.

    Found by running `images` through: architectures name it differently. Raises ExplainError where there is
    none, as in vision transformers.
    """
    finished: list[nn.Module] = []

    def remember(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
            finished.append(module)

    handles = [module.register_forward_hook(remember) for module in network.modules()]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    # A transformer's only feature map is its cut into patches, the first layer.
    if not finished or any(isinstance(module, nn.MultiheadAttention) for module in network.modules()):
        raise ExplainError(
            f"{type(network).__name__} has no feature map before its head, which cam needs; "
            "leave cam out of --methods."
        )
    return finished[-1]


def _keep_activations(network: nn.Module) -> None:
    """An in-place ReLU overwrites the feature map whose gradient is wanted."""
    for module in network.modules():
        if isinstance(getattr(module, "inplace", None), bool):
            module.inplace = False  # type: ignore[assignment]
