"""Normalizations inside a record: groups of channels, trailing dims, slices of a weight."""

from dpnorm.provenance.axes import all_but, placed, present, reduced_to, spread
from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, bits, reshape, uniform
from dpnorm.provenance.registry import rule


@rule("aten::native_group_norm")
def group_norm(call: Call) -> list[Mask]:
    """Statistics of each (sample, group): its channels and all their positions."""
    x = call.mask("input")
    assert x is not None
    statistics = _groups(call, x)
    affine = [placed(call.mask(name), 1, x.ndim) for name in ("weight", "bias")]
    output = call.union(x.shape, x, _over_groups(call, statistics, x.shape), *affine)
    return present(call.out, [output, statistics, statistics])


@rule("aten::native_group_norm_backward")
def group_norm_backward(call: Call) -> list[Mask]:
    """The gradient meets its whole group; weight and bias sum over samples and positions."""
    x, grad = call.mask("input"), call.mask("grad_out")
    mean, rstd = call.mask("mean"), call.mask("rstd")
    assert x is not None
    assert grad is not None
    assert mean is not None
    assert rstd is not None
    size = (call["N"], call["group"])
    both = call.union(x.shape, x, grad, placed(call.mask("weight"), 1, x.ndim))
    own = call.union(size, _groups(call, both), reshape(mean, size), reshape(rstd, size))
    grad_input = _over_groups(call, own, x.shape)
    centred = call.union(size, reshape(mean, size), reshape(rstd, size))
    terms = call.union(x.shape, x, grad, _over_groups(call, centred, x.shape))
    flat, channel = (call["N"], call["C"], call["HxW"]), (call["C"],)
    return present(
        call.out,
        [
            grad_input,
            reduced_to(reshape(terms, flat), (0, 2), channel),
            reduced_to(reshape(grad, flat), (0, 2), channel),
        ],
    )


def _groups(call: Call, mask: Mask) -> Mask:
    """OR over each (sample, group)."""
    N, C, G = call["N"], call["C"], call["group"]
    blocks = reshape(mask, (N, G, C // G, call["HxW"]))
    return reduced_to(blocks, (2, 3), (N, G))


def _over_groups(call: Call, statistics: Mask, shape: tuple[int, ...]) -> Mask:
    """Spreads the bits of each (sample, group) over its elements."""
    N, C, G = call["N"], call["C"], call["group"]
    blocks = statistics.reshape(N, G, 1, 1) if statistics.size else statistics
    return reshape(call.union((N, G, C // G, call["HxW"]), blocks), shape)


@rule("aten::native_layer_norm", "aten::_fused_rms_norm")
def layer_norm(call: Call) -> list[Mask]:
    """Statistics over the trailing dims. Returns the output and one or two statistics."""
    x = call.mask("input")
    assert x is not None
    line = spread(x, _trailing(call, x))
    output = call.union(x.shape, line, call.mask("weight"), call.mask("bias"))
    return present(call.out, [output, *[line] * (len(call.out) - 1)])


@rule("aten::native_layer_norm_backward", "aten::_fused_rms_norm_backward")
def layer_norm_backward(call: Call) -> list[Mask]:
    """The gradient meets its whole line; weight and bias sum over all lines."""
    x, grad = call.mask("input"), call.mask("grad_out")
    assert x is not None
    assert grad is not None
    dims = _trailing(call, x)
    statistics = [call.mask(name) for name in ("mean", "rstd")]
    weight = uniform((), call.bits("weight"))
    both = call.union(x.shape, x, grad)
    grad_input = call.union(x.shape, spread(both, dims), weight, *statistics)
    lines = tuple(range(x.ndim - len(dims)))
    shape = x.shape[len(lines) :]
    terms = call.union(x.shape, x, grad, *statistics)
    found = [grad_input, reduced_to(terms, lines, shape), reduced_to(grad, lines, shape)]
    return present(call.out, found[: len(call.out)])


def _trailing(call: Call, mask: Mask) -> tuple[int, ...]:
    count = len(call["normalized_shape"])
    return tuple(range(mask.ndim - count, mask.ndim))


@rule("aten::_weight_norm_interface")
def weight_norm(call: Call) -> list[Mask]:
    """w = g v / |v|, the norm over all dims but one."""
    v = call.mask("v")
    assert v is not None
    own = _slices(call, v)
    return present(call.out, [call.union(v.shape, own, call.mask("g")), own])


@rule("aten::_weight_norm_interface_backward")
def weight_norm_backward(call: Call) -> list[Mask]:
    """Both gradients meet the whole slice of the weight and of its gradient."""
    grad, v = call.mask("grad_w"), call.mask("saved_v")
    g, norms = call.mask("saved_g"), call.mask("saved_norms")
    assert v is not None
    assert g is not None
    own = _slices(call, call.union(v.shape, v, grad))
    grad_g = call.union(own.shape, own, norms)
    return present(call.out, [call.union(v.shape, own, g, norms), grad_g])


def _slices(call: Call, mask: Mask) -> Mask:
    dim = call["dim"]
    if dim < 0:  # the norm of the whole weight
        return uniform((1,) * mask.ndim, bits(mask))
    return spread(mask, all_but(mask.ndim, dim))
