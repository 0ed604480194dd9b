"""Random sources: the randomness has no bits, the tensors that parametrize it keep theirs.

Samples with different parameters are independent given the parameters, which is what a mask says,
even where a rejection sampler draws a number of times from the generator that depends on them.
"""

import numpy as np
from torch import Tensor

from dpnorm.provenance.call import Call
from dpnorm.provenance.lines import given
from dpnorm.provenance.masks import Mask, clean, reduce_or
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.views import own


def _shape(call: Call) -> tuple[int, ...]:
    out = call.out[0] if isinstance(call.out, (tuple, list)) else call.out
    return tuple(out.shape)


def _of(call: Call, *names: str) -> Mask:
    """OR of those named arguments that are tensors."""
    return call.union(_shape(call), *[call.mask(tensor) for tensor in given(call, *names)])


@rule(
    "aten::normal",
    "aten::normal_functional",
    "aten::uniform",
    "aten::exponential",
    "aten::geometric",
    "aten::log_normal",
    "aten::cauchy",
    "aten::random",
    "aten::_philox_normal",
    "aten::_philox_uniform",
)
def noise(call: Call) -> Mask:
    """Fresh noise: of `self` only the shape matters; a mean or a deviation keeps its bits."""
    return _of(call, "mean", "std", "key")


@rule("aten::bernoulli")
def bernoulli(call: Call) -> Mask:
    """Coins: probabilities are `p` if the overload has it, otherwise `self`."""
    return _of(call, "p") if "p" in call.arguments else own(call)


@rule("aten::poisson", "aten::_standard_gamma", "aten::binomial")
def sampled(call: Call) -> Mask:
    """A sample for each parameter."""
    return _of(call, "self", "count", "prob")


@rule("aten::_standard_gamma_grad")
def gamma_grad(call: Call) -> Mask:
    """Pointwise in the parameter and the sample."""
    return _of(call, "self", "output")


@rule("aten::_sample_dirichlet")
def dirichlet(call: Call) -> Mask:
    """A sample sums to 1 along the last dimension."""
    mask = own(call)
    return np.broadcast_to(reduce_or(mask, -1), mask.shape) if mask.ndim else mask


@rule("aten::_dirichlet_grad")
def dirichlet_grad(call: Call) -> Mask:
    """Pointwise in the sample, the concentration and their total."""
    return _of(call, "x", "alpha", "total")


@rule("aten::native_dropout", "aten::_fused_dropout")
def dropout(call: Call) -> list[Mask]:
    """The input and an independent coin for each element."""
    mask = call.mask("input" if "input" in call.arguments else "self")
    assert mask is not None
    return [mask, clean(mask.shape)]


@rule("aten::native_dropout_backward", "aten::_masked_scale")
def dropout_backward(call: Call) -> Mask:
    """Pointwise in the gradient and the coins."""
    return _of(call, "grad_output", "self", "mask")


@rule("aten::rrelu_with_noise", "aten::rrelu_with_noise_functional")
def rrelu(call: Call) -> Mask | list[Mask]:
    """The noise is kept where the input is negative, and so gets its bits."""
    kept = call.union(_shape(call), own(call), call.mask("noise"))
    if "functional" in call.name:
        return [kept, kept]
    call.write(call["noise"], kept)
    return own(call)


@rule("aten::rrelu_with_noise_backward")
def rrelu_backward(call: Call) -> Mask:
    """Pointwise in the gradient, the input and the noise."""
    return _of(call, "grad_output", "self", "noise")


@rule("aten::randint_like")
def randint_like(call: Call) -> Mask:
    """Of `self` only the shape matters; a tensor bound keeps its bits."""
    high = call["high"]
    found = call.bits(high) if isinstance(high, Tensor) else 0
    return np.broadcast_to(np.uint8(found), _shape(call))
