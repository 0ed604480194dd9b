"""Dividing each record by a mixture of 1 and its own root mean square."""

import math
from typing import Any

import torch
from torch import Tensor

_TINY = 1e-5  # so that a record of zeros has a finite scale where its own counts alone
_HALF = (torch.float16, torch.bfloat16)


def mean_square(z: Tensor) -> Tensor:
    """The mean of z^2 of each record, (N,): half precision is squared in float32."""
    flat = (z.float() if z.dtype in _HALF else z).flatten(1)
    return torch.linalg.vector_norm(flat, dim=1).square() / max(flat.shape[1], 1)


def own_scale(square: Tensor, share: float) -> Tensor:
    """One over a mixture of 1 and each record's root mean square: 1 / sqrt(1 - s + s square).

    Args:
        square: (N,), the `mean_square` of each record.
        share: s, how far it counts.
    """
    return torch.rsqrt(1 - share + share * square + _TINY)


def spread(vectors: Tensor, like: Tensor) -> Tensor:
    """Views (N, ...) so that it broadcasts along the last dimensions of `like`."""
    return vectors.view(*vectors.shape, *[1] * (like.dim() - vectors.dim()))


def scaled(
    z: Tensor, weight: Tensor, bias: Tensor, share: float, square: Tensor | None = None
) -> Tensor:
    """`weight * own_scale * z + bias`, z (N, C, ...), weight and bias (C,).

    Args:
        z: what is scaled.
        weight: of each channel.
        bias: of each channel.
        share: see `own_scale`.
        square: `mean_square(z)`, for whoever knows it already.
    """
    if not share:
        return _scaled(z, weight[None], bias)
    if square is None:
        square = mean_square(z.detach()) if z.requires_grad else mean_square(z)
    if z.requires_grad:
        return _OwnScaleAffine.apply(z, weight, bias, share, square)
    return _scaled(z, weight * own_scale(square, share).to(z.dtype)[:, None], bias)


def _scaled(z: Tensor, factor: Tensor, bias: Tensor) -> Tensor:
    return (z * spread(factor, z)).add_(spread(bias[None], z))


class _OwnScaleAffine(torch.autograd.Function):
    """`weight * own_scale(mean_square(z)) * z + bias`, with gradients that take few passes.

    With p = the sum of z * g over the positions, (N, C), and M values in a record, they are

        of weight: sum over N of p * own_scale             of bias: sum of g
        of z: weight * own_scale * g - z * (s / M) * own_scale^3 * (p @ weight)

    Left to autograd they take twice as many, and a step of a small network 5% more time. Where z
    needs no gradient they do not. `square` is given as a number without a history; the gradient
    of z is whole without it.
    """

    generate_vmap_rule = True  # for whoever runs the layer under torch.func

    @staticmethod
    def forward(z: Tensor, weight: Tensor, bias: Tensor, share: float, square: Tensor) -> Tensor:
        return _scaled(z, weight * own_scale(square, share).to(z.dtype)[:, None], bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, weight, _, ctx.share, square = inputs
        ctx.save_for_backward(z, weight, square)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        z, weight, square = ctx.saved_tensors
        shape, size, dtype = z.shape, max(math.prod(z.shape[1:]), 1), z.dtype
        if dtype in _HALF:
            z, gradient = z.float(), gradient.float()
        if torch.is_grad_enabled():  # second derivatives, and all of torch.func, go through it
            square = mean_square(z)
        z, gradient = (t.flatten(2) if t.dim() > 2 else t.unsqueeze(2) for t in (z, gradient))
        scale, wide = own_scale(square, ctx.share)[:, None], weight.to(gradient.dtype)
        products, factor = z * gradient, (scale * wide)[:, :, None]
        along = products.sum(2)
        inward = (-(ctx.share / size) * scale**3 * (along @ wide)[:, None])[:, :, None]
        if torch.is_grad_enabled():
            of_z = torch.addcmul(gradient * factor, z, inward)
        else:  # in the memory of the products: to ask for more takes as long as to compute
            of_z = torch.mul(gradient, factor, out=products).addcmul_(z, inward)
        of_weight, of_bias = (along * scale).sum(0), gradient.sum(2).sum(0)
        return of_z.view(shape).to(dtype), of_weight.to(weight), of_bias.to(weight), None, None
