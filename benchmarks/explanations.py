"""Are the heat maps true? Deletion against chance, Captum's map and occlusion, on a folder of real images.

    python -m benchmarks.explanations ARTIFACT IMAGES [--limit 100 --precision int8]

ARTIFACT is an unpacked model.tar.gz.

Deletion: the 20 % of the picture that the map likes best is painted in the picture's mean colour, and so is
a random 20 % of the same coarseness (the mean over a few draws); the map is right where the first costs the
predicted label more probability. Captum's LayerGradCam is computed by torch from the weights, on the layer
whose output is the last feature map. Occlusion asks for the probability without one place at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray

from artifact.bundle import Bundle, open_bundle
from artifact.preprocess import decode_pixels
from serving.engine_openvino import OpenVinoExplainer
from serving.engine_torch import load_network
from serving.heatmap import enlarge

SHARE = 0.2
DRAWS = 5

Pixels = NDArray[np.uint8]
Probability = Callable[[Pixels], float]


def delete(pixels: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """(side, side, 3) with the SHARE of pixels where `heat` (side, side) is highest in the mean colour."""
    count = round(SHARE * heat.size)
    painted = pixels.reshape(-1, 3).copy()
    painted[np.argsort(-heat, axis=None, kind="stable")[:count]] = pixels.mean(axis=(0, 1)).round()
    return painted.reshape(pixels.shape)


def deletion_drops(
    pixels: Pixels, heat: NDArray[np.float32], probability: Probability, random: np.random.Generator
) -> tuple[float, float]:
    """How far the probability falls without what the map likes best, and without as much at random."""
    whole, side = probability(pixels), len(pixels)
    by_map = whole - probability(delete(pixels, enlarge(heat, side)))
    draws = [random.random(heat.shape, dtype=np.float32) for _ in range(DRAWS)]
    by_chance = [whole - probability(delete(pixels, enlarge(draw, side))) for draw in draws]
    return by_map, statistics.mean(by_chance)


def occlusion_map(pixels: Pixels, shape: tuple[int, int], probability: Probability) -> NDArray[np.float32]:
    """(height, width): what painting over each place costs; asks the network height x width times."""
    whole, side = probability(pixels), len(pixels)
    drops = np.zeros(shape, dtype=np.float32)
    for place in np.ndindex(*shape):
        rows, columns = (slice(side * k // n, side * (k + 1) // n) for k, n in zip(place, shape, strict=True))
        painted = pixels.copy()
        painted[rows, columns] = pixels.mean(axis=(0, 1)).round()
        drops[place] = whole - probability(painted)
    return drops


def captum_map(bundle: Bundle) -> Callable[[Pixels, int], NDArray[np.float32]]:
    """(crop, crop, 3) and a target -> (height, width) by captum, on torch."""
    network = load_network(bundle)
    inner = network.network
    layer = (
        getattr(inner, "stages", None) or getattr(inner, "layer4", None) or getattr(inner, "features", None)
    )
    if not isinstance(layer, torch.nn.Module):
        raise SystemExit(f"no known last layer in {bundle.manifest.architecture}")
    attribution = LayerGradCam(network, layer)

    def draw(pixels: Pixels, target: int) -> NDArray[np.float32]:
        one = torch.from_numpy(pixels[np.newaxis]).float().requires_grad_()
        found: torch.Tensor = attribution.attribute(one, target=target)
        return found[0, 0].detach().numpy()

    return draw


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Pearson's, of two maps; 1 where both are flat."""
    if one.std() < 1e-9 and other.std() < 1e-9:
        return 1.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def measure(bundle: Bundle, paths: list[Path], precision: str) -> dict[str, Any]:
    """The figures over these images."""
    explainer = OpenVinoExplainer(bundle, precision=precision, num_threads=1)
    by_captum, random = captum_map(bundle), np.random.default_rng(0)
    hits, drops, correlations, occlusions = 0, [], [], []
    for path in paths:
        pixels = decode_pixels(path.read_bytes(), bundle.manifest.preprocess)
        log_probabilities, maps = explainer.explain(pixels)
        target = int(log_probabilities.argmax())
        heat = maps[target]

        def probability(painted: Pixels, target: int = target) -> float:
            return float(np.exp(explainer.predict(painted[np.newaxis])[0, target]))

        by_map, by_chance = deletion_drops(pixels, heat, probability, random)
        hits += by_map > by_chance
        drops.append((by_map, by_chance))
        correlations.append(correlation(heat, by_captum(pixels, target)))
        occlusions.append(correlation(heat, occlusion_map(pixels, heat.shape, probability)))
    return {
        "architecture": bundle.manifest.architecture,
        "precision": precision,
        "images": len(paths),
        "deletion_beats_chance": hits / len(paths),
        "mean_drop_by_map": statistics.mean(drop[0] for drop in drops),
        "mean_drop_by_chance": statistics.mean(drop[1] for drop in drops),
        "share_of_correlations_from_0.9": sum(one >= 0.9 for one in correlations) / len(paths),
        "least_correlation_with_captum": min(correlations),
        "median_correlation_with_captum": statistics.median(correlations),
        "median_correlation_with_occlusion": statistics.median(occlusions),
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--limit", type=int, default=100, help="images, evenly spread over the folder")
    arguments = parser.parse_args()
    paths = sorted(path for path in arguments.images.rglob("*") if path.is_file())
    chosen = paths[:: max(1, len(paths) // arguments.limit)][: arguments.limit]
    print(json.dumps(measure(open_bundle(arguments.artifact), chosen, arguments.precision), indent=2))


if __name__ == "__main__":
    main()
