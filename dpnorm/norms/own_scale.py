"""Dividing each record by a mixture of 1 and its own root mean square."""

import math
from typing import Any

import torch
from torch import Tensor

_TINY = 1e-5  # so that a record of zeros has a finite scale where its own counts alone
_HALF = (torch.float16, torch.bfloat16)


def own_scale(z: Tensor, share: float) -> Tensor:
    """One over a mixture of 1 and each record's root mean square: 1 / sqrt(1 - s + s mean(z^2)).

    Args:
        z: (N, ...); half precision is squared in float32.
        share: s, how far the record's own mean square counts.

    Returns:
        (N,) in float32 or wider.
    """
    flat = (z.float() if z.dtype in _HALF else z).flatten(1)
    square = torch.linalg.vector_norm(flat, dim=1).square() / max(flat.shape[1], 1)
    return torch.rsqrt(1 - share + share * square + _TINY)


def spread(vectors: Tensor, like: Tensor) -> Tensor:
    """Views (N, ...) so that it broadcasts along the last dimensions of `like`."""
    return vectors.view(*vectors.shape, *[1] * (like.dim() - vectors.dim()))


def scaled(z: Tensor, weight: Tensor, bias: Tensor, share: float) -> Tensor:
    """`weight * own_scale(z) * z + bias`, z (N, C, ...), weight and bias (C,)."""
    if share and z.requires_grad:
        return _OwnScaleAffine.apply(z, weight, bias, share)
    return _scaled(z, weight, bias, share)


def _scaled(z: Tensor, weight: Tensor, bias: Tensor, share: float) -> Tensor:
    factor = weight[None]
    if share:
        factor = factor * own_scale(z, share).to(z.dtype)[:, None]
    return (z * spread(factor, z)).add_(spread(bias[None], z))


class _OwnScaleAffine(torch.autograd.Function):
    """`_scaled`, with gradients that take few passes over the values.

    With p = the sum of z * g over the positions, (N, C), and M values in a record, they are

        of weight: sum over N of p * own_scale(z)             of bias: sum of g
        of z: weight * own_scale(z) * g - z * (s / M) * own_scale(z)^3 * (p @ weight)

    Left to autograd they take twice as many, and a step of a small network 5% more time. Where z
    needs no gradient they do not.
    """

    generate_vmap_rule = True  # for whoever runs the layer under torch.func

    @staticmethod
    def forward(z: Tensor, weight: Tensor, bias: Tensor, share: float) -> Tensor:
        return _scaled(z, weight, bias, share)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, weight, _, ctx.share = inputs
        ctx.save_for_backward(z, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        z, weight = ctx.saved_tensors
        shape, size, dtype = z.shape, max(math.prod(z.shape[1:]), 1), z.dtype
        if dtype in _HALF:
            z, gradient = z.float(), gradient.float()
        z, gradient = (t.flatten(2) if t.dim() > 2 else t.unsqueeze(2) for t in (z, gradient))
        # once more, since a scale that was kept would be a constant to second derivatives
        scale, wide = own_scale(z, ctx.share)[:, None], weight.to(gradient.dtype)
        products, factor = z * gradient, (scale * wide)[:, :, None]
        along = products.sum(2)
        inward = (-(ctx.share / size) * scale**3 * (along @ wide)[:, None])[:, :, None]
        if torch.is_grad_enabled():  # second derivatives, and all of torch.func
            of_z = torch.addcmul(gradient * factor, z, inward)
        else:  # in the memory of the products: to ask for more takes as long as to compute
            of_z = products.copy_(gradient).mul_(factor).addcmul_(z, inward)
        of_weight, of_bias = (along * scale).sum(0), gradient.sum(2).sum(0)
        return of_z.view(shape).to(dtype), of_weight.to(weight), of_bias.to(weight), None
