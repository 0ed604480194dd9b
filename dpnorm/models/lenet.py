"""A LeNet with BatchNorm."""

from torch import nn

from dpnorm.errors import InputError
from dpnorm.models.registry import ImageSize, model


@model("lenet")
def lenet(*, in_channels: int, num_classes: int, image_size: ImageSize) -> nn.Module:
    """Builds two 5x5 convolutions of 16 and 32 channels and two linear layers.

    Takes images [N, in_channels, H, W] of at least 2x2.

    Raises:
        InputError: the image size is smaller.
    """
    if image_size is not None and min(image_size) < 2:
        raise InputError(f"lenet halves its input once: it needs at least 2x2, not {image_size}")
    return nn.Sequential(
        nn.Conv2d(in_channels, 16, kernel_size=5, padding=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, kernel_size=5, padding=2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )
