"""Building the network of a recipe or of a suite: a fresh model for some data, converted."""

from typing import Annotated

from pydantic import AfterValidator
from torch import nn

from dpnorm.conversion import convert, variants
from dpnorm.data import Dataset
from dpnorm.errors import unknown_name
from dpnorm.models import build


def _known_variant(name: str) -> str:
    if name not in variants():
        raise unknown_name("variant", name, variants())
    return name


VariantName = Annotated[str, AfterValidator(_known_variant)]
"""A name in `dpnorm.variants()`, as a configuration holds it."""


def build_network(model: str, variant: str, data: Dataset) -> nn.Module:
    """A fresh model for the data, converted; statistics of `frozen` come from the public part.

    Weights are drawn from torch's global random state, the same for every variant.

    Raises:
        InputError: an unknown model or variant.
        ConversionError: the model cannot take the variant.
    """
    image_size = (data.shape[1], data.shape[2]) if len(data.shape) == 3 else None
    network = build(
        model, in_channels=data.shape[0], num_classes=data.num_classes, image_size=image_size
    )
    public = data.public.x if variant == "frozen" else None
    return convert(network, to=variant, init="copy", public_inputs=public).model
