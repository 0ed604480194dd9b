"""Convolutions: samples stay apart, and so do channel groups and what no window joins.

An output element sees its sample's input channels of its group at the positions of its window, all
of the weights of its own output channel, and its bias. Windows are boxes, so the OR over one is
taken dimension by dimension: exact where records lie along a spatial dimension (a 1x1 convolution
over a sequence of them), free where the mask is constant along it.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, core, reduce_or, union
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.matmul import known, present


@dataclass(frozen=True)
class Window:
    """Where a convolution looks: one number a spatial dimension; `padding` is that on the left."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    groups: int


def convolved(data: Mask, weight: Mask, out: tuple[int, ...], window: Window) -> Mask:
    """The mask (N, O, *spatial) of a convolution without bias of (N, C, *spatial)."""
    seen = _grouped(core(data), window.groups, out[1])
    for dim in range(len(out) - 2):
        seen = _along(seen, dim, out[dim + 2], window)
    by_channel = _weight_by_output(core(weight), out[1], window)
    return union(out, [seen, by_channel.reshape(-1, *[1] * (len(out) - 2))])


def _grouped(data: Mask, groups: int, outputs: int) -> Mask:
    """OR over each group's input channels, given to each of its output channels."""
    if data.shape[1] == 1 or groups == 1:
        return np.bitwise_or.reduce(data, axis=1, keepdims=True)
    shape = (data.shape[0], groups, data.shape[1] // groups, *data.shape[2:])
    return np.repeat(np.bitwise_or.reduce(data.reshape(shape), axis=2), outputs // groups, axis=1)


def _weight_by_output(weight: Mask, outputs: int, window: Window) -> Mask:
    """OR of the weights that reach each output channel; length 1 when all have the same."""
    flat = np.bitwise_or.reduce(weight, axis=tuple(range(2, weight.ndim)))
    if flat.size <= 1 or not window.transposed:
        return np.bitwise_or.reduce(flat, axis=1)
    per_group = outputs // window.groups  # a transposed weight is (C, O / groups, *kernel)
    if flat.shape[0] == 1:
        return np.tile(np.broadcast_to(flat[0], per_group), window.groups)
    flat = np.broadcast_to(flat, (flat.shape[0], per_group))
    return np.bitwise_or.reduce(flat.reshape(window.groups, -1, per_group), axis=1).reshape(-1)


def _along(data: Mask, dim: int, size: int, window: Window) -> Mask:
    """OR over the window along one spatial dimension; a constant dimension stays constant."""
    lines = np.moveaxis(data, dim + 2, 0)
    length = lines.shape[0]
    if length == 1:
        return data
    result = np.zeros((size, *lines.shape[1:]), np.uint8)
    steps = np.arange(length if window.transposed else size) * window.stride[dim]
    for tap in range(window.kernel[dim]):
        places = steps - window.padding[dim] + tap * window.dilation[dim]
        inside = (places >= 0) & (places < (size if window.transposed else length))
        if window.transposed:
            result[places[inside]] |= lines[inside]
        else:
            result[inside] |= lines[places[inside]]
    return np.moveaxis(result, 0, dim + 2)


def _window(call: Call, weight: Mask, channels: int) -> Window:
    """Reads the geometry from whatever arguments this operator has."""
    kernel = tuple(weight.shape[2:])
    name = call.name
    dilation = _spread(call.arguments.get("dilation"), len(kernel), 1)
    padding = call.arguments.get("padding")
    if isinstance(padding, str):
        same = [d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True)]
        padding = same if padding == "same" else 0
    groups = channels if "depthwise" in name else 1
    return Window(
        kernel,
        _spread(call.arguments.get("stride"), len(kernel), 1),
        _spread(padding, len(kernel), 0),
        dilation,
        bool(call.arguments.get("transposed", "transpose" in name)),
        call.arguments.get("groups", groups),
    )


def _spread(value: Any, dims: int, default: int) -> tuple[int, ...]:
    """A list of one number a dimension; a single number stands for all."""
    listed = [default] if value is None else [value] if isinstance(value, int) else list(value)
    return tuple(listed * dims if len(listed) == 1 else listed or [default] * dims)


@rule(
    "aten::convolution",
    "aten::_convolution",
    "aten::convolution_overrideable",
    "aten::_convolution_mode",
    "aten::conv1d",
    "aten::conv2d",
    "aten::conv3d",
    "aten::conv_transpose1d",
    "aten::conv_transpose2d",
    "aten::conv_transpose3d",
    "aten::cudnn_convolution",
    "aten::cudnn_convolution_transpose",
    "aten::cudnn_convolution_relu",
    "aten::cudnn_convolution_add_relu",
    "aten::miopen_convolution",
    "aten::miopen_convolution_transpose",
    "aten::miopen_depthwise_convolution",
    "aten::miopen_convolution_relu",
    "aten::miopen_convolution_add_relu",
    "aten::mkldnn_convolution",
    "aten::_mps_convolution",
    "aten::_mps_convolution_transpose",
    "aten::_nnpack_spatial_convolution",
    "aten::thnn_conv2d",
    "aten::_slow_conv2d_forward",
    "aten::slow_conv3d",
    "aten::slow_conv3d_forward",
    "aten::slow_conv_dilated2d",
    "aten::slow_conv_dilated3d",
    "aten::slow_conv_transpose2d",
    "aten::slow_conv_transpose3d",
    "aten::_conv_depthwise2d",
    "aten::conv_depthwise3d",
)
def convolution(call: Call) -> Mask:
    """A convolution of any kind, with bias, and with an added tensor in the fused ones."""
    data = known(call, "input" if "input" in call.arguments else "self")
    weight = known(call, "weight")
    out = tuple(call.out.shape)
    single = data.ndim == weight.ndim - 1  # some kernels take (C, *spatial) as it is
    if single:
        data, out = data[None], (1, *out[-data.ndim :])
    found = convolved(data, weight, out, _window(call, weight, data.shape[1]))
    bias = call.mask("bias") if call.arguments.get("bias") is not None else None
    if bias is not None:
        bias = bias.reshape(-1, *[1] * (len(out) - 2))
    found = call.union(out, found, bias, call.mask("z") if "z" in call.arguments else None)
    return found[0] if single else found


@rule(
    "aten::convolution_backward",
    "aten::convolution_backward_overrideable",
    "aten::_slow_conv2d_backward",
    "aten::mps_convolution_backward",
    "aten::mps_convolution_transpose_backward",
)
def convolution_backward(call: Call) -> list[Mask]:
    """The input's gradient is the transposed convolution; those of weight and bias sum over N.

    A weight's gradient sees its output channel's gradients and its input channel's activations.
    """
    grad, weight = known(call, "grad_output"), known(call, "weight")
    data = known(call, "input" if "input" in call.arguments else "self")
    single = data.ndim == weight.ndim - 1
    if single:
        data, grad = data[None], grad[None]
    window = _window(call, weight, data.shape[1])
    masks = []
    if call.out[0] is not None:
        turned = replace(window, transposed=not window.transposed)
        found = convolved(grad, weight, data.shape, turned)
        masks.append(found[0] if single else found)
    if call.out[1] is not None:
        masks.append(_weight_gradient(data, grad, weight.shape, window))
    if len(call.out) > 2 and call.out[2] is not None:
        masks.append(_by_channel(grad))
    return masks


def _by_channel(mask: Mask) -> Mask:
    return reduce_or(mask, [d for d in range(mask.ndim) if d != 1], keepdim=False)


def _weight_gradient(data: Mask, grad: Mask, shape: tuple[int, ...], window: Window) -> Mask:
    """The mask of (rows, columns a group, *kernel): OR of its row's and its column's channel."""
    rows, columns = _by_channel(grad), _by_channel(data)
    if window.transposed:
        rows, columns = columns, rows
    if core(rows).size <= 1 and core(columns).size <= 1:
        both = union((1, 1), [core(rows).reshape(-1, 1), core(columns).reshape(1, -1)])
    else:
        per_group = np.repeat(columns.reshape(window.groups, -1), shape[0] // window.groups, axis=0)
        both = rows[:, None] | per_group
    return np.broadcast_to(both.reshape(*both.shape, *[1] * (len(shape) - 2)), shape)


@rule("aten::conv_tbc")
def conv_tbc(call: Call) -> Mask:
    """A convolution over the first dimension of (T, B, C) with a weight of (kernel, C, O)."""
    data, weight = known(call, "self").transpose(1, 2, 0), known(call, "weight").transpose(2, 1, 0)
    size, batch, outputs = call.out.shape
    window = Window(weight.shape[2:], (1,), (call["pad"],), (1,), False, 1)
    found = convolved(data, weight, (batch, outputs, size), window).transpose(2, 0, 1)
    return call.union(tuple(call.out.shape), found, call.mask("bias"))


@rule("aten::conv_tbc_backward")
def conv_tbc_backward(call: Call) -> list[Mask]:
    """Gradients of input, weight and bias, as those of an ordinary convolution."""
    grad, data = known(call, "self").transpose(1, 2, 0), known(call, "input").transpose(1, 2, 0)
    weight = known(call, "weight").transpose(2, 1, 0)
    window = Window(weight.shape[2:], (1,), (call["pad"],), (1,), True, 1)
    outer = _by_channel(data)[:, None] | _by_channel(grad)[None, :]
    masks = [
        convolved(grad, weight, data.shape, window).transpose(2, 0, 1),
        outer[None],
        _by_channel(grad),
    ]
    return present(call, masks)
