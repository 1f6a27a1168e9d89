"""An artifact of weights that were trained elsewhere."""

from __future__ import annotations

from pathlib import Path

from artifact.bundle import pack_artifact
from artifact.labels import read_labels
from artifact.network import PixelNetwork, build_network
from artifact.preprocess import Preprocess
from training.export import Trained, draw_golden_body, export
from training.network import load_weights, read_state_dict


def import_weights(
    weights: Path, *, architecture: str, labels_path: Path, output: Path, preprocess: Preprocess
) -> Path:
    """An artifact, `output`/model.tar.gz, from weights that were trained elsewhere."""
    labels = read_labels(labels_path)
    network = build_network(architecture, len(labels))
    load_weights(network, read_state_dict(weights), source=str(weights))
    trained = Trained(
        network=PixelNetwork(network, preprocess),
        architecture=architecture,
        labels=labels,
        preprocess=preprocess,
        golden_body=draw_golden_body(preprocess.resize),
    )
    export(trained, output / "model")
    pack_artifact(output / "model", output / "model.tar.gz")
    return output / "model.tar.gz"
