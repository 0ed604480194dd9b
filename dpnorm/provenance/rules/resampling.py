"""Interpolation and grid sampling: every output place may see every place of its channel."""

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.lines import returned
from dpnorm.provenance.masks import Mask, reduce_or, spread_or, union
from dpnorm.provenance.registry import rule

_UPSAMPLE = [
    *[f"aten::upsample_nearest{n}d" for n in (1, 2, 3)],
    *[f"aten::_upsample_nearest_exact{n}d" for n in (1, 2, 3)],
    "aten::upsample_linear1d",
    "aten::upsample_bilinear2d",
    "aten::upsample_bicubic2d",
    "aten::upsample_trilinear3d",
    *[f"aten::_upsample_{mode}2d_aa" for mode in ("bilinear", "bicubic", "lanczos")],
]


def _spatial(mask: Mask) -> Mask:
    """OR over all dimensions behind batch and channel, which become 1."""
    return reduce_or(mask, range(2, mask.ndim))


@rule(*_UPSAMPLE)
def upsample(call: Call) -> Mask:
    """OR over the spatial dimensions."""
    mask = call.mask("self" if "self" in call.arguments else "input")
    assert mask is not None
    return np.broadcast_to(_spatial(mask), tuple(call.out.shape))


@rule(*[f"{name}_backward" for name in _UPSAMPLE])
def upsample_backward(call: Call) -> Mask:
    """OR over the spatial dimensions."""
    grad = call.mask("grad_output")
    assert grad is not None
    return np.broadcast_to(_spatial(grad), tuple(call.out.shape))


def _first(call: Call, *names: str) -> Mask:
    for name in names:
        mask = call.mask(name)
        if mask is not None:
            return mask
    raise AssertionError(f"{call.name} has none of {names}")


@rule(
    "aten::grid_sampler_2d",
    "aten::grid_sampler_3d",
    "aten::_grid_sampler_2d_cpu_fallback",
    "aten::cudnn_grid_sampler",
)
def grid_sampler(call: Call) -> Mask:
    """The grid says where to look: all places of the channel, and the grid's own bits there."""
    image, grid = _first(call, "input", "self"), _first(call, "grid")
    where = np.expand_dims(reduce_or(grid, -1, keepdim=False), 1)
    return union(tuple(call.out.shape), [_spatial(image), where])


@rule(
    "aten::grid_sampler_2d_backward",
    "aten::grid_sampler_3d_backward",
    "aten::_grid_sampler_2d_cpu_fallback_backward",
    "aten::cudnn_grid_sampler_backward",
)
def grid_sampler_backward(call: Call) -> list[Mask]:
    """The image's gradient collects wherever the grid looked; the grid's reads the whole image."""
    image, grid = _first(call, "input", "self"), _first(call, "grid")
    grad = _first(call, "grad_output")
    rest = tuple(range(1, grid.ndim))
    looked = reduce_or(grid, rest)  # (N, 1, ..., 1), as many dimensions as the image
    to_image = union(image.shape, [_spatial(grad), looked])
    own_place = np.moveaxis(reduce_or(grad, 1), 1, -1)  # (N, *spatial, 1)
    everything = reduce_or(image, range(1, image.ndim))
    to_grid = union(grid.shape, [own_place, everything, spread_or(grid, -1)])
    return returned(call, [to_image, to_grid])


@rule("aten::affine_grid_generator", "aten::cudnn_affine_grid_generator")
def affine_grid(call: Call) -> Mask:
    """Each record's grid from its own matrix."""
    theta, shape = _first(call, "theta"), tuple(call.out.shape)
    lines = reduce_or(theta, (1, 2)).reshape(theta.shape[0], *(1,) * (len(shape) - 1))
    return np.broadcast_to(lines, shape)


@rule("aten::cudnn_affine_grid_generator_backward")
def affine_grid_backward(call: Call) -> Mask:
    """Each record's matrix from its own grid's gradient."""
    grad = _first(call, "grad")
    lines = reduce_or(grad, range(1, grad.ndim)).reshape(grad.shape[0], 1, 1)
    return np.broadcast_to(lines, tuple(call.out.shape))
