"""Models of torchvision and timm."""

import sys

import pytest
import torch
from torch import nn

from dpnorm.errors import InputError, MissingExtraError
from dpnorm.models import build

torch.set_num_threads(1)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("a model reached for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "name", ["tv:resnet18", "tv:mobilenet_v3_small", "timm:resnet18", "timm:efficientnet_b0"]
)
def test_it_takes_these_channels_and_classes(no_network, name, channels):
    pytest.importorskip(
        {"tv": "torchvision", "timm": "timm"}[name.partition(":")[0]], exc_type=ImportError
    )
    model = build(name, in_channels=channels, num_classes=7).eval()
    logits = model(torch.rand(2, channels, 64, 64))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


def test_only_the_first_convolution_of_torchvision_is_replaced():
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    ours = build("tv:resnet18", in_channels=5, num_classes=7)
    theirs = models.resnet18(weights=None, num_classes=7)
    shapes = {name: tuple(p.shape) for name, p in theirs.named_parameters()}
    assert shapes["conv1.weight"] == (64, 3, 7, 7)
    shapes["conv1.weight"] = (64, 5, 7, 7)
    assert {name: tuple(p.shape) for name, p in ours.named_parameters()} == shapes
    assert (ours.conv1.stride, ours.conv1.padding, ours.conv1.bias) == ((2, 2), (3, 3), None)


def test_three_channels_give_exactly_the_model_of_torchvision():
    models = pytest.importorskip("torchvision.models", exc_type=ImportError)
    torch.manual_seed(0)
    ours = build("tv:resnet18", in_channels=3, num_classes=7).state_dict()
    torch.manual_seed(0)
    theirs = models.resnet18(weights=None, num_classes=7).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_a_segmentation_model_does_not_download_its_backbone(no_network):
    pytest.importorskip("torchvision", exc_type=ImportError)
    model = build("tv:lraspp_mobilenet_v3_large", in_channels=3, num_classes=2)
    assert isinstance(model, nn.Module)


@pytest.mark.parametrize("name", ["tv:vit_b_16", "timm:vit_tiny_patch16_224"])
def test_vision_transformers_are_built_for_the_image_size(no_network, name):
    pytest.importorskip(
        {"tv": "torchvision", "timm": "timm"}[name.partition(":")[0]], exc_type=ImportError
    )
    model = build(name, num_classes=3, image_size=32).eval()
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 3)


def test_what_torchvision_cannot_build_is_refused():
    pytest.importorskip("torchvision", exc_type=ImportError)
    with pytest.raises(InputError, match=r"unknown torchvision model.*did you mean 'resnet18'"):
        build("tv:resnet-18")
    with pytest.raises(InputError, match="no Conv2d with 3 input channels"):
        build("tv:r3d_18", in_channels=1)
    with pytest.raises(InputError, match="takes square images only"):
        build("tv:vit_b_16", image_size=(32, 64))
    with pytest.raises(InputError, match="torchvision cannot build 'vit_b_16'"):
        build("tv:vit_b_16", image_size=30)


def test_what_timm_cannot_build_is_refused(no_network):
    pytest.importorskip("timm", exc_type=ImportError)
    with pytest.raises(InputError, match=r"unknown timm model.*did you mean 'efficientnet_b0'"):
        build("timm:eficientnet_b0")
    with pytest.raises(InputError, match="unknown timm model 'hf-hub:someone/model'"):
        build("timm:hf-hub:someone/model")


@pytest.mark.parametrize(("name", "package"), [("tv:resnet18", "torchvision"), ("timm:x", "timm")])
def test_a_missing_package_names_the_extra(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package}.*pip install 'dpnorm\[vision\]'"):
        build(name)
