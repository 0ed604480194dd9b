"""A wide residual network with BatchNorm before each convolution (arXiv:1605.07146)."""

import torch
from torch import Tensor, nn

from dpnorm.models.registry import ImageSize, model


class PreActivationBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, and a shortcut.

    [N, C, H, W] to [N, width, H / stride, W / stride]. Where the shape changes, the shortcut is
    a 1x1 convolution of the activated input.
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != width:
            self.shortcut = nn.Conv2d(channels, width, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = torch.relu(self.bn1(x))
        identity = x if self.shortcut is None else self.shortcut(activated)
        x = self.conv2(torch.relu(self.bn2(self.conv1(activated))))
        return x + identity


class WideResNet(nn.Module):
    """A 3x3 stem of 16 channels and three stages of 16, 32 and 64 times `widen` channels.

    Takes images [N, in_channels, H, W] of any size and returns logits [N, num_classes]. The
    depth is 6 times the number of blocks in a stage, plus 4.
    """

    def __init__(self, blocks: int, widen: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        w1, w2, w3 = 16 * widen, 32 * widen, 64 * widen
        self.conv = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.stage1 = _stage(16, w1, blocks, stride=1)
        self.stage2 = _stage(w1, w2, blocks, stride=2)
        self.stage3 = _stage(w2, w3, blocks, stride=2)
        self.bn = nn.BatchNorm2d(w3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(w3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage3(self.stage2(self.stage1(self.conv(x))))
        x = torch.relu(self.bn(x))
        return self.fc(self.pool(x).flatten(1))


def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = PreActivationBlock(channels, width, stride)
    return nn.Sequential(first, *(PreActivationBlock(width, width, 1) for _ in range(blocks - 1)))


@model("wrn16-4")
def wrn16_4(*, in_channels: int, num_classes: int, image_size: ImageSize) -> nn.Module:
    """Builds a wide ResNet of depth 16 and width 4."""
    return WideResNet(2, 4, in_channels, num_classes)
