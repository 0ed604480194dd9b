"""A small VGG with BatchNorm."""

from torch import nn

from dpnorm.errors import InputError
from dpnorm.models.registry import ImageSize, model


@model("vgg-small")
def vgg_small(*, in_channels: int, num_classes: int, image_size: ImageSize) -> nn.Module:
    """Builds three pairs of 3x3 convolutions, of 32, 64 and 128 channels, each pair pooled.

    Takes images [N, in_channels, H, W] of at least 8x8.

    Source: configuration B of arXiv:1409.1556, cut to three stages, with BatchNorm.

    Raises:
        InputError: the image size is smaller.
    """
    if image_size is not None and min(image_size) < 8:
        raise InputError(
            f"vgg-small halves its input three times: it needs at least 8x8, not {image_size}"
        )
    layers: list[nn.Module] = []
    channels = in_channels
    for width in (32, 64, 128):
        for _ in range(2):
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
    return nn.Sequential(*layers)
