"""Models of torchvision, without weights: `tv:NAME`."""

import inspect
import warnings
from typing import Any

from torch import nn

from dpnorm.errors import InputError, MissingExtraError, unknown_name
from dpnorm.models.registry import ImageSize, scheme


@scheme("tv")
def build_from_torchvision(
    name: str, *, in_channels: int, num_classes: int, image_size: ImageSize
) -> nn.Module:
    """Builds `torchvision.models.get_model(name, weights=None, num_classes=num_classes)`.

    Where `in_channels` is not 3, the first Conv2d is replaced by a fresh one that fits. Nothing
    is downloaded, backbones included. Vision transformers are built for the image size, if given.

    Raises:
        MissingExtraError: torchvision is not installed.
        InputError: an unknown name, or a model that cannot be built with these arguments.
    """
    try:
        from torchvision import models
    except ModuleNotFoundError as error:
        raise MissingExtraError("torchvision", "vision", f"the model 'tv:{name}'") from error
    if name not in models.list_models():
        raise unknown_name("torchvision model", name, models.list_models())
    options: dict[str, Any] = {"num_classes": num_classes}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # its default would download
    if name.startswith("vit_") and image_size is not None:
        options["image_size"] = _square(name, image_size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # googlenet, inception: how they start
            built: nn.Module = models.get_model(name, weights=None, **options)
    except Exception as error:
        raise InputError(
            f"torchvision cannot build {name!r} with {options}: {type(error).__name__}: {error}"
        ) from error
    if in_channels != 3:
        _replace_first_convolution(name, built, in_channels)
    return built


def _replace_first_convolution(name: str, built: nn.Module, in_channels: int) -> None:
    for path, module in built.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            parent, _, last = path.rpartition(".")
            setattr(built.get_submodule(parent), last, _widened(module, in_channels))
            return
    raise InputError(
        f"torchvision's {name!r} has no Conv2d with 3 input channels to replace, so it cannot "
        f"take {in_channels}; give it records of 3 channels"
    )


def _widened(old: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        old.out_channels,
        kernel_size=old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        dilation=old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )


def _square(name: str, image_size: tuple[int, int]) -> int:
    if image_size[0] != image_size[1]:
        raise InputError(f"torchvision's {name!r} takes square images only, not {image_size}")
    return image_size[0]
