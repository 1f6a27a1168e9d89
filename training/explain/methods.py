"""Attribution methods: how much each pixel speaks for one label. Computed by captum, https://captum.ai.

All take a normalised picture (1, 3, H, W), the target and the picture with everything hidden, and answer
(H, W): positive speaks for the label, negative against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import IntegratedGradients, KernelShap, LayerAttribution, LayerGradCam, Occlusion
from numpy.typing import NDArray
from skimage.segmentation import slic
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

from training.explain.network import find_feature_layer

BATCH_SIZE = 32  # changed copies of a picture that are predicted at once
INTEGRATION_STEPS = 32
NUM_SUPERPIXELS = 40
SAMPLES_PER_SUPERPIXEL = 8
BLUR_PER_SIDE = 8  # the blur that hides has this part of the side as its sigma
SMOOTH_PER_SIDE = 64  # of gradients, which strided convolutions leave chequered
WINDOWS_PER_SIDE = 6  # an occluding window's side is this part of the picture's; it moves by half of it

Map = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Why does `network` call this picture `target`?"""

    network: nn.Module  # normalised (N, 3, H, W) -> logits
    images: Tensor  # (1, 3, H, W) normalised
    hidden: Tensor  # the same with every pixel hidden
    target: int
    seed: int = 0

    def log_probabilities(self, images: Tensor) -> Tensor:
        """(N, num_classes); steadier than probabilities, which saturate at 1."""
        return torch.log_softmax(self.network(images), dim=1)


def explain_by_cam(question: Question) -> Map:
    """Grad-CAM (Selvaraju et al. 2017), which for a network that ends in mean and linear layer is CAM."""
    layer = find_feature_layer(question.network, question.images)
    small = LayerGradCam(question.network, layer).attribute(question.images, target=question.target)
    side = tuple(question.images.shape[2:])
    return _to_map(LayerAttribution.interpolate(small, side, interpolate_mode="bilinear"))


def explain_by_integrated_gradients(question: Question) -> Map:
    """Sundararajan et al. 2017: gradients summed on the way from hidden to shown."""
    attribution = IntegratedGradients(question.log_probabilities).attribute(
        question.images,
        baselines=question.hidden,
        target=question.target,
        n_steps=INTEGRATION_STEPS,
        internal_batch_size=BATCH_SIZE,
    )
    return _to_map(_blur(attribution, min(attribution.shape[2:]) / SMOOTH_PER_SIDE))


def explain_by_shap(question: Question) -> Map:
    """Kernel SHAP (Lundberg and Lee 2017) over superpixels, as SageMaker Clarify explains pictures."""
    superpixels = cut_superpixels(question.images)
    count = int(superpixels.max()) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(question.seed)
        attribution = KernelShap(_without_gradients(question)).attribute(
            question.images,
            baselines=question.hidden,
            target=question.target,
            feature_mask=superpixels,
            n_samples=SAMPLES_PER_SUPERPIXEL * count,
            perturbations_per_eval=BATCH_SIZE,
        )
    return _to_map(attribution)


def explain_by_occlusion(question: Question) -> Map:
    """Zeiler and Fergus 2014: what a hidden window costs, averaged over the windows on a pixel."""
    side = max(2, question.images.shape[-1] // WINDOWS_PER_SIDE)
    attribution = Occlusion(_without_gradients(question)).attribute(
        question.images,
        baselines=question.hidden,
        target=question.target,
        sliding_window_shapes=(3, side, side),
        strides=(3, side // 2, side // 2),
        perturbations_per_eval=BATCH_SIZE,
    )
    return _to_map(attribution)


METHODS: dict[str, Callable[[Question], Map]] = {
    "cam": explain_by_cam,
    "integrated_gradients": explain_by_integrated_gradients,
    "shap": explain_by_shap,
    "occlusion": explain_by_occlusion,
}


def hide(images: Tensor) -> Tensor:
    """The picture blurred until nothing is to be told; a plain colour's edges would be seen as shapes."""
    side = min(images.shape[2:])
    return _blur(images, side / BLUR_PER_SIDE)


def cut_superpixels(images: Tensor) -> Tensor:
    """(1, 1, H, W) int64 from 0: regions of alike colour (SLIC, Achanta et al. 2012)."""
    picture = images[0].permute(1, 2, 0).numpy().astype(np.float64)
    span = np.ptp(picture) or 1.0
    regions = slic((picture - picture.min()) / span, n_segments=NUM_SUPERPIXELS, start_label=0)
    return torch.from_numpy(regions.astype(np.int64))[None, None]


def _blur(images: Tensor, sigma: float) -> Tensor:
    reach = min(round(3 * sigma), min(images.shape[2:]) - 1)  # as far as a reflected border allows
    blurred: Tensor = gaussian_blur(images, kernel_size=2 * reach + 1, sigma=sigma)
    return blurred


def _without_gradients(question: Question) -> Callable[[Tensor], Tensor]:
    def predict(images: Tensor) -> Tensor:
        with torch.no_grad():
            return question.log_probabilities(images)

    return predict


def _to_map(attribution: Tensor) -> Map:
    """(1, channels, H, W) -> (H, W): the channels' parts add up."""
    return attribution.detach()[0].sum(dim=0).double().numpy()
