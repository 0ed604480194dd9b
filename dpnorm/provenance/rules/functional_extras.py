"""Elementwise operators some of whose overloads torch leaves without its pointwise tag."""

from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.pointwise import pointwise

ACTIVATIONS = [
    "celu",
    "elu",
    "elu_backward",
    "gelu",
    "gelu_backward",
    "hardshrink",
    "hardshrink_backward",
    "hardsigmoid",
    "hardsigmoid_backward",
    "hardswish",
    "hardtanh",
    "hardtanh_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "mish",
    "mish_backward",
    "relu",
    "softplus",
    "softplus_backward",
    "softshrink",
    "softshrink_backward",
    "threshold",
    "threshold_backward",
]
ARITHMETIC = [
    "_add_relu",
    "abs",
    "add",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "complex",
    "copysign",
    "div",
    "eq",
    "floor_divide",
    "gcd",
    "ge",
    "gt",
    "heaviside",
    "isinf",
    "isnan",
    "lcm",
    "le",
    "lt",
    "mul",
    "ne",
    "polar",
    "remainder",
    "rsub",
    "sub",
    "xlogy",
    "__lshift__",
    "__rshift__",
    "__ilshift__",
    "__irshift__",
]


@rule(*[f"aten::{name}" for name in (*ACTIVATIONS, *ARITHMETIC)])
def elementwise(call: Call) -> Mask:
    """OR of the arguments at the same place."""
    return pointwise(call)


@rule("aten::where")
def where(call: Call) -> Mask:
    """Either of two tensors, as the condition at the same place says."""
    return pointwise(call)
