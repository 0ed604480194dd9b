"""Swapping BatchNorm for layers that DP-SGD can train, keeping what the model has learned."""

from dpnorm.conversion.convert import convert
from dpnorm.conversion.recipes import Variant, variants
from dpnorm.conversion.result import Change, Conversion

__all__ = ["convert", "variants", "Change", "Conversion", "Variant"]
