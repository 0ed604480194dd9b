"""Batch normalization in all its kernels: statistics of a channel come from every record.

The output of a training-mode kernel depends on all elements of its channel, so do the saved
statistics and what is written into the running ones. Channels stay apart, which keeps the
(1, B*C, ...) trick of instance normalization exact.
"""

from dpnorm.provenance.axes import all_but, placed, present, reduced_to, spread
from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, bits, uniform
from dpnorm.provenance.registry import rule

_ALWAYS = {"aten::_batch_norm_with_update", "aten::_batch_norm_with_update_functional"}
_NEVER = {"aten::_batch_norm_no_update", "aten::_native_batch_norm_legit_no_training"}


@rule(
    "aten::native_batch_norm",
    "aten::_native_batch_norm_legit",
    "aten::_native_batch_norm_legit_functional",
    "aten::_native_batch_norm_legit_no_training",
    "aten::_batch_norm_with_update",
    "aten::_batch_norm_with_update_functional",
    "aten::_batch_norm_no_update",
    "aten::cudnn_batch_norm",
    "aten::miopen_batch_norm",
)
def batch_norm(call: Call) -> list[Mask]:
    """Training: OR over the channel, also into running statistics. Evaluation: per element.

    Returns output, saved mean, saved inverse deviation, then what the kernel adds: a reserve (of
    the whole input, so all its bits) and, in functional variants, the new running statistics.
    """
    x = call.mask("input")
    assert x is not None
    running = [call.arguments.get("running_mean"), call.arguments.get("running_var")]
    batch = call.name in _ALWAYS or (
        call.name not in _NEVER and (call["training"] or running[0] is None)
    )
    if batch and call.excuse(call.out[1]):
        batch = False
    size = (x.shape[1],)
    if batch:
        own = reduced_to(x, all_but(x.ndim, 1), size)
        moved = [call.union(size, own, call.mask(tensor)) for tensor in running]
        statistics = own
    else:
        moved = [call.union(size, call.mask(tensor)) for tensor in running]
        statistics = call.union(size, *moved)
    affine = [placed(call.mask(name), 1, x.ndim) for name in ("weight", "bias")]
    output = call.union(x.shape, x, placed(statistics, 1, x.ndim), *affine)
    found = [output, statistics, statistics]
    functional = call.name.endswith("_functional")
    extra = len(call.out) - len(found) - 2 * functional
    found += [uniform((), bits(x) | bits(statistics))] * extra
    if functional:
        found += moved
    elif batch:
        for tensor, mask in zip(running, moved, strict=True):
            call.write(tensor, mask)
    return present(call.out, found)


@rule(
    "aten::native_batch_norm_backward",
    "aten::batch_norm_backward",
    "aten::cudnn_batch_norm_backward",
    "aten::miopen_batch_norm_backward",
)
def batch_norm_backward(call: Call) -> list[Mask]:
    """Gradients of input, weight and bias.

    In training the gradient of every element meets all of its channel, of the input and of the
    output gradient. In evaluation it is the output gradient times a constant of the channel. The
    cuDNN reserve was written by the forward pass from the same input and adds nothing to it.
    """
    x, grad = call.mask("input"), call.mask("grad_out")
    grad = call.mask("grad_output") if grad is None else grad
    assert x is not None
    assert grad is not None
    batch = call.arguments.get("train", call.arguments.get("update", True))
    batch = batch or call.arguments.get("running_mean") is None
    batch = batch and not call.is_excused(call.arguments.get("save_mean"))
    weight = placed(call.mask("weight"), 1, x.ndim)
    others, size = all_but(x.ndim, 1), (x.shape[1],)
    names: tuple[str, ...] = ("save_mean", "save_invstd", "save_var", "running_mean", "running_var")
    if batch:
        names = names[:3]
    fixed = [placed(call.mask(name), 1, x.ndim) for name in names]
    fixed = [mask for mask in fixed if mask is not None and mask.size]  # empty: not used
    statistics = call.union((1, *size, *(1,) * (x.ndim - 2)), *fixed)
    both = call.union(x.shape, x, grad, statistics)
    if batch:
        grad_input = call.union(x.shape, spread(both, others), weight)
    else:
        grad_input = call.union(x.shape, grad, statistics, weight)
    return present(
        call.out, [grad_input, reduced_to(both, others, size), reduced_to(grad, others, size)]
    )


@rule("aten::batch_norm_stats", "aten::batch_norm_update_stats")
def batch_statistics(call: Call) -> list[Mask]:
    """Mean and deviation of each channel, and the running statistics that they move."""
    x = call.mask("input")
    assert x is not None
    size = (x.shape[1],)
    own = reduced_to(x, all_but(x.ndim, 1), size)
    for name in ("running_mean", "running_var"):
        tensor = call.arguments.get(name)
        if tensor is not None:
            call.write(tensor, call.union(size, own, call.mask(tensor)))
    return [own, own]


@rule("aten::batch_norm_gather_stats", "aten::batch_norm_gather_stats_with_counts")
def gathered_statistics(call: Call) -> list[Mask]:
    """Statistics of several devices (rows) put together, channel by channel."""
    x, mean, deviation = call.mask("input"), call.mask("mean"), call.mask("invstd")
    assert x is not None
    assert mean is not None
    assert deviation is not None
    counts = uniform((), call.bits(call.arguments.get("counts")))
    rows = call.union(mean.shape, mean, deviation, counts)
    own = reduced_to(rows, all_but(rows.ndim, rows.ndim - 1), rows.shape[-1:])
    for name in ("running_mean", "running_var"):
        tensor = call.arguments.get(name)
        if tensor is not None:
            call.write(tensor, call.union(own.shape, own, call.mask(tensor)))
    return [own, own]


@rule("aten::batch_norm_elemt", "aten::batch_norm_backward_elemt")
def apply_statistics(call: Call) -> Mask:
    """Elementwise with vectors of the channel; `count` is of all devices."""
    x = call.mask("input")
    assert x is not None
    names = ("weight", "bias", "mean", "invstd", "sum_dy", "sum_dy_xmu")
    vectors = [placed(call.mask(name), 1, x.ndim) for name in names]
    count = uniform((), call.bits("count"))
    return call.union(x.shape, x, call.mask("grad_out"), count, *vectors)


@rule("aten::batch_norm_backward_reduce")
def batch_norm_backward_reduce(call: Call) -> list[Mask]:
    """Sums over each channel: of dy, of dy (x - mean), and the gradients of weight and bias."""
    x, grad = call.mask("input"), call.mask("grad_out")
    assert x is not None
    assert grad is not None
    vectors = [placed(call.mask(name), 1, x.ndim) for name in ("mean", "invstd")]
    both = call.union(x.shape, x, grad, *vectors)
    others, size = all_but(x.ndim, 1), (x.shape[1],)
    plain, moment = reduced_to(grad, others, size), reduced_to(both, others, size)
    return present(call.out, [plain, moment, moment, plain])
