"""A multilayer perceptron with BatchNorm."""

from torch import nn

from dpnorm.models.registry import ImageSize, model


@model("mlp")
def mlp(*, in_channels: int, num_classes: int, image_size: ImageSize) -> nn.Module:
    """Builds features-128-64-classes, with BatchNorm and ReLU after each hidden layer.

    Takes images [N, in_channels, H, W], or, without an image size, flat records [N, in_channels].
    """
    height, width = image_size or (1, 1)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(in_channels * height * width, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )
