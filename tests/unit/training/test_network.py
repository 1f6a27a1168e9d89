"""Architectures, heads and weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from artifact.network import ArchitectureError, Head, PixelNetwork, architectures, build_network
from artifact.preprocess import Preprocess
from training.job import JobError
from training.network import (
    download_pretrained,
    freeze_backbone,
    load_backbone,
    load_weights,
    read_state_dict,
    set_training_mode,
)

# One of each family: the head has another name or kind in each.
FAMILIES = [
    "cnn", "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18",
    "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg11_bn", "vit_b_16",
]  # fmt: skip


@pytest.mark.parametrize("architecture", FAMILIES)
def test_only_the_head_of_a_frozen_network_learns(architecture: str) -> None:
    network = build_network(architecture, 7)

    freeze_backbone(network)

    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert {parameter.shape[0] for parameter in learning} == {7}  # weight and bias, a row per class
    assert len(learning) <= 2


def test_every_torchvision_architecture_can_be_named() -> None:
    assert {"cnn", "resnet50", "densenet121", "vit_b_16", "convnext_base"} <= set(architectures())


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(ArchitectureError, match="Nearest: resnet50"):
        build_network("resnet_50", 2)


def test_custom_classifier_replaces_the_last_layer() -> None:
    network = build_network("resnet18", 5, head_hidden=32, dropout=0.3)

    assert isinstance(network.fc, Head)
    assert [type(layer) for layer in network.fc] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 5)


def test_custom_classifier_of_a_frozen_network_learns_whole() -> None:
    network = build_network("resnet18", 5, head_hidden=32)

    freeze_backbone(network)
    set_training_mode(network, frozen=True)

    assert sum(parameter.requires_grad for parameter in network.parameters()) == 4
    assert network.get_submodule("fc").training and not network.get_submodule("layer1").training


def test_custom_classifier_on_a_convolutional_head_is_refused() -> None:
    with pytest.raises(ArchitectureError, match="squeezenet1_1 ends in Conv2d"):
        build_network("squeezenet1_1", 5, head_hidden=8)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_backbone_weights_are_loaded_and_the_head_stays(tmp_path: Path, suffix: str) -> None:
    source = build_network("cnn", 10)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": source.state_dict()}, path)
    else:
        safetensors.torch.save_file(source.state_dict(), path)
    network = build_network("cnn", 3)
    head_before = network.state_dict()["fc.weight"].clone()

    load_backbone(network, read_state_dict(path), source=str(path))

    assert torch.equal(network.state_dict()["stem.0.weight"], source.state_dict()["stem.0.weight"])
    assert torch.equal(network.state_dict()["fc.weight"], head_before)


def test_backbone_of_another_architecture_is_refused() -> None:
    with pytest.raises(JobError, match=r"tensors are missing, unknown or of another shape"):
        load_backbone(build_network("resnet18", 3), build_network("cnn", 3).state_dict(), source="w.pth")


def test_import_refuses_a_head_of_another_shape() -> None:
    with pytest.raises(JobError, match=r"for instance fc\.bias"):
        load_weights(build_network("cnn", 3), build_network("cnn", 4).state_dict(), source="w.pth")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"garbage", "cannot be read as weights only", id="garbage"),
        pytest.param(None, "There is no weights file", id="absent"),
    ],
)
def test_unusable_weights_file_is_refused(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(JobError, match=sentence):
        read_state_dict(path)


def test_pickled_network_is_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(build_network("cnn", 2), path)  # the whole object: reading it would run its code

    with pytest.raises(JobError, match=r"Save it as torch\.save\(network\.state_dict\(\)"):
        read_state_dict(path)


def test_pretrained_weights_without_network_name_the_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens on the discard port

    with pytest.raises(JobError, match=r"--weights PATH .* or set pretrained=false"):
        download_pretrained("resnet18")


def test_normalisation_is_torchvisions() -> None:
    from torchvision import transforms

    preprocess = Preprocess(resize=8, crop=8)
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)

    normalised = PixelNetwork(nn.Identity(), preprocess).normalise(pixels)

    reference = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(preprocess.mean, preprocess.std)]
    )
    assert torch.equal(normalised, torch.stack([reference(image.numpy()) for image in pixels]))
