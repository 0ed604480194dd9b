"""The models by name. A new one is a new file in this package and no edit elsewhere."""

from collections.abc import Callable
from typing import Protocol

from torch import nn

from dpnorm.errors import InputError, unknown_name
from dpnorm.models.from_factory import build_from_factory

ImageSize = tuple[int, int] | None


class Builder(Protocol):
    """Builds a model; the arguments have been checked."""

    def __call__(
        self, *, in_channels: int, num_classes: int, image_size: ImageSize
    ) -> nn.Module: ...


class SchemeBuilder(Protocol):
    """Builds the model of a collection that goes by `name` there."""

    def __call__(
        self, name: str, *, in_channels: int, num_classes: int, image_size: ImageSize
    ) -> nn.Module: ...


MODELS: dict[str, Builder] = {}
SCHEMES: dict[str, SchemeBuilder] = {}


def model(name: str) -> Callable[[Builder], Builder]:
    """Registers a function as the builder of `name`."""

    def add(builder: Builder) -> Builder:
        MODELS[name] = builder
        return builder

    return add


def scheme(prefix: str) -> Callable[[SchemeBuilder], SchemeBuilder]:
    """Registers a function as the builder of every name `prefix:NAME`."""

    def add(builder: SchemeBuilder) -> SchemeBuilder:
        SCHEMES[prefix] = builder
        return builder

    return add


def names() -> list[str]:
    """Returns the names of dpnorm's own models.

    >>> names()
    ['lenet', 'mlp', 'resnet20', 'resnet8', 'vgg-small', 'wrn16-4']
    """
    return sorted(MODELS)


def build(
    name: str,
    *,
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: int | tuple[int, int] | None = None,
) -> nn.Module:
    """Builds a model with fresh weights, drawn from torch's global random state.

    | name | what |
    |---|---|
    | in `names()` | a small BatchNorm network of dpnorm |
    | `tv:NAME` | of torchvision, without weights; the first convolution fits `in_channels` |
    | `timm:NAME` | of timm, without weights |
    | `package.module:factory` | what your function or class returns; imports your code |

    Args:
        name: as above.
        in_channels: channels of the images [N, in_channels, H, W]; without an image size the
            `mlp` takes it as the number of features of flat records [N, in_channels].
        num_classes: columns of the logits [N, num_classes].
        image_size: H = W, or (H, W), in pixels. Only models that depend on it look at it.

    Raises:
        InputError: an unknown name or an argument that is not as above; a factory that cannot
            be imported, fails or returns something else than a model.
        MissingExtraError: torchvision or timm is not installed.

    >>> import torch
    >>> build("resnet8", num_classes=4)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 4])
    """
    if not isinstance(name, str):
        raise InputError(f"a model is named by a string, but {name!r} was given")
    _require_positive("in_channels", in_channels)
    _require_positive("num_classes", num_classes)
    size = _size(image_size)
    if name in MODELS:
        return MODELS[name](in_channels=in_channels, num_classes=num_classes, image_size=size)
    prefix, colon, rest = name.partition(":")
    if not colon:
        patterns = [f"{prefix}:NAME" for prefix in sorted(SCHEMES)] + ["package.module:factory"]
        raise unknown_name("model", name, names() + patterns)
    if prefix in SCHEMES:
        return SCHEMES[prefix](
            rest, in_channels=in_channels, num_classes=num_classes, image_size=size
        )
    return build_from_factory(
        name, {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
    )


def _require_positive(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{what} must be an integer of at least 1, but {value!r} was given")


def _size(image_size: object) -> ImageSize:
    if image_size is None:
        return None
    pair = image_size if isinstance(image_size, tuple | list) else (image_size, image_size)
    if len(pair) != 2:
        raise InputError(
            f"image_size must be an integer or a pair (H, W), but {image_size!r} was given"
        )
    for side in pair:
        _require_positive("image_size", side)
    return (pair[0], pair[1])
