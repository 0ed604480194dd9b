"""Test-time views of a record: the fixed augmentations under which its signals are taken."""

from typing import TYPE_CHECKING

from dpnorm.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("shift", "shift-flip")
_STEPS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))


def fixed_views(x: "Tensor", count: int, kind: str = "shift") -> "list[Tensor]":
    """The first `count` views of images, the images themselves first; the same at every call.

    Views are shifts by one pixel, then by two, and so on up to an eighth of the side (at least
    one), with the border pixels repeated, as the training's augmentation makes them; "shift-flip"
    takes each also mirrored. LiRA with several queries a record is that of Carlini et al.,
    arXiv 2112.03570, section VI-C.

    Args:
        x: images (N, C, H, W); other shapes only with one view.
        count: of views, A.
        kind: "shift" or "shift-flip".

    Returns:
        A tensors of the shape of x.

    Raises:
        InputError: no images, or more views than there are.
    """
    if kind not in KINDS:
        raise unknown_name("kind of view", kind, KINDS)
    if count == 1:
        return [x]
    if x.dim() != 4:
        raise InputError(
            f"{count} views were asked for, but the records are {tuple(x.shape[1:])}: views are of "
            "images (C, H, W); take views=1"
        )
    places = _places(count, kind, max(1, min(x.shape[2:]) // 8))
    if not 1 <= count <= len(places):
        raise InputError(
            f"{count} views were asked for; of images of {x.shape[2]} x {x.shape[3]} there are 1 "
            f"to {len(places)} of the kind {kind!r}"
        )
    return [_moved(x.flip(3) if flip else x, down, right) for down, right, flip in places]


def _places(count: int, kind: str, reach: int) -> list[tuple[int, int, bool]]:
    steps = [_STEPS[0]] + [(a * r, b * r) for r in range(1, reach + 1) for a, b in _STEPS[1:]]
    mirrored = (False, True) if kind == "shift-flip" else (False,)
    return [(down, right, flip) for down, right in steps for flip in mirrored][: max(count, 1)]


def _moved(x: "Tensor", down: int, right: int) -> "Tensor":
    import torch

    if not down and not right:
        return x
    rows = (torch.arange(x.shape[2], device=x.device) + down).clamp(0, x.shape[2] - 1)
    columns = (torch.arange(x.shape[3], device=x.device) + right).clamp(0, x.shape[3] - 1)
    return x[:, :, rows][:, :, :, columns]
