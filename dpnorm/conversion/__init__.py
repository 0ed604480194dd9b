"""Swapping BatchNorm for layers that DP-SGD can train, keeping what the model has learned."""

from dpnorm.conversion.archive import load
from dpnorm.conversion.convert import convert
from dpnorm.conversion.fidelity import Fidelity, fidelity
from dpnorm.conversion.manifest import Change, Manifest
from dpnorm.conversion.recipes import Variant, variants
from dpnorm.conversion.result import Conversion

__all__ = [
    "convert",
    "variants",
    "load",
    "fidelity",
    "Change",
    "Conversion",
    "Fidelity",
    "Manifest",
    "Variant",
]
