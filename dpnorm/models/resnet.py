"""Residual networks for small images, with BatchNorm (arXiv:1512.03385, section 4.2)."""

import torch
from torch import Tensor, nn

from dpnorm.models.registry import ImageSize, model


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: [N, C, H, W] to [N, width, H / stride, W / stride].

    Where the shape changes, the shortcut is a 1x1 convolution with BatchNorm (option B).
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = self.shortcut(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x = x + identity
        return torch.relu(x)


class ResNet(nn.Module):
    """A 3x3 stem of 16 channels, three stages of 16, 32 and 64, a mean and a linear layer.

    Takes images [N, in_channels, H, W] of any size and returns logits [N, num_classes].
    """

    def __init__(self, blocks: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.stage1 = _stage(16, 16, blocks, stride=1)
        self.stage2 = _stage(16, 32, blocks, stride=2)
        self.stage3 = _stage(32, 64, blocks, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(self.pool(x).flatten(1))


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels, width, stride)
    return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(blocks - 1)))


@model("resnet8")
def resnet8(*, in_channels: int, num_classes: int, image_size: ImageSize) -> nn.Module:
    """Builds a ResNet with one block a stage."""
    return ResNet(1, in_channels, num_classes)


@model("resnet20")
def resnet20(*, in_channels: int, num_classes: int, image_size: ImageSize) -> nn.Module:
    """Builds a ResNet with three blocks a stage."""
    return ResNet(3, in_channels, num_classes)
