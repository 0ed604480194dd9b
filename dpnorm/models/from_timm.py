"""Models of timm, without weights: `timm:NAME`."""

import difflib
from typing import Any

from torch import nn

from dpnorm.errors import InputError, MissingExtraError
from dpnorm.models.registry import ImageSize, scheme


@scheme("timm")
def build_from_timm(
    name: str, *, in_channels: int, num_classes: int, image_size: ImageSize
) -> nn.Module:
    """Builds `timm.create_model(name, pretrained=False, in_chans=..., num_classes=...)`.

    A model with a fixed input size (vision transformers) is built for `image_size`, if given.
    Names that would download (`hf-hub:`) are unknown here.

    Raises:
        MissingExtraError: timm is not installed.
        InputError: an unknown name, or a model that cannot be built with these arguments.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtraError("timm", "vision", f"the model 'timm:{name}'") from error
    if not timm.is_model(name):
        known = timm.list_models()
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"unknown timm model {name!r}: allowed are the {len(known)} names of "
            f"timm.list_models(){hint}"
        )
    options: dict[str, Any] = {"in_chans": in_channels, "num_classes": num_classes}
    config = timm.get_pretrained_cfg(name)
    if image_size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    try:
        built: nn.Module = timm.create_model(name, pretrained=False, **options)
    except Exception as error:
        raise InputError(
            f"timm cannot build {name!r} with {options}: {type(error).__name__}: {error}"
        ) from error
    return built
