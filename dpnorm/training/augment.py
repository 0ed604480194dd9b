"""Random views of records, whose randomness does not depend on data."""

import torch
from torch import Tensor, nn

from dpnorm.errors import InputError


def augmented(x: Tensor, kind: str, views: int) -> Tensor:
    """Random views of each record, drawn from torch's global random state.

    Args:
        x: images (N, C, H, W); other shapes only for kind "none".
        kind: "none"; "shift": moved by up to an eighth of height and width, with the border pixels
            repeated; "shift-flip": half of them also mirrored.
        views: of each record, V.

    Returns:
        (N, C, H, W) for one view, otherwise (N, V, C, H, W).

    Raises:
        InputError: records that are no images.
    """
    many = x.unsqueeze(1).expand(-1, views, *x.shape[1:]) if views > 1 else x
    if kind == "none":
        return many
    if x.dim() != 4:
        raise InputError(
            f"augment={kind!r} needs images (N, C, H, W), the records are {tuple(x.shape[1:])}: "
            "take augment='none'"
        )
    flat = many.reshape(-1, *x.shape[1:])
    moved = _shifted(flat)
    if kind == "shift-flip":
        mirrored = torch.rand(len(flat)) < 0.5
        moved = torch.where(mirrored.to(x.device).view(-1, 1, 1, 1), moved.flip(3), moved)
    return moved.view(many.shape)


def _shifted(x: Tensor) -> Tensor:
    """Each image moved by its own whole number of pixels."""
    images, channels, height, width = x.shape
    places = []
    for size in (height, width):
        reach = max(1, size // 8)
        by = torch.randint(-reach, reach + 1, (images, 1))
        places.append((torch.arange(size) + by).clamp(0, size - 1).to(x.device))
    rows = places[0].view(images, 1, height, 1).expand(-1, channels, -1, width)
    columns = places[1].view(images, 1, 1, width).expand(-1, channels, height, -1)
    return x.gather(2, rows).gather(3, columns)


class ManyViews(nn.Module):
    """A model of several views of each record: (N, V, *shape) to (N, V, *output).

    The views of a record are rows of its own, which private training puts together to one gradient
    before it clips.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class ViewsLoss(nn.CrossEntropyLoss):
    """Cross entropy, the mean over the views of a record where there are several.

    Shapes: output (N, K) or (N, V, K), targets (N,).
    """

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        if output.dim() == 2:
            return super().forward(output, target)
        views = output.shape[1]
        return super().forward(output.transpose(1, 2), target[:, None].expand(-1, views))
