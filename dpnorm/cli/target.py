"""Model targets on the command line, and inputs of the shape that was asked for."""

from typing import TYPE_CHECKING

from dpnorm.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

_DEFAULT_SHAPES = {"tv:": (4, 3, 224, 224), "timm:": (4, 3, 224, 224)}


def shape_for(target: str, given: str | None) -> tuple[int, ...]:
    """The input shape: as given, "4,3,224,224", or the usual one of torchvision and timm."""
    if given is not None:
        return _parse_shape(given)
    for prefix, shape in _DEFAULT_SHAPES.items():
        if target.startswith(prefix):
            return shape
    raise InputError(
        f"the input shape of {target!r} is not known: give it with --input, batch first, such as "
        "--input 4,1,28,28"
    )


def build_target(target: str, shape: tuple[int, ...], num_classes: int) -> "nn.Module":
    """The model of a target, in training mode, for inputs of a shape."""
    import torch

    from dpnorm.models import build

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(
            target,
            in_channels=shape[1] if len(shape) > 1 else 1,
            num_classes=num_classes,
            image_size=(shape[2], shape[3]) if len(shape) == 4 else None,
        )
    return model.train()


def random_inputs(shape: tuple[int, ...], seed: int) -> "Tensor":
    """Standard normal inputs."""
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _parse_shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(
            f"--input is {text!r}: it should be positive whole numbers, batch first, such as "
            "4,3,224,224"
        )
    return shape
