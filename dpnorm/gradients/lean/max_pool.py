"""Max pooling with channels last, where torch's kernel takes many channels at once.

With channels first it compares number by number, and of random data the processor guesses wrong
which is the larger.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dpnorm.gradients.lean.maps import maps_in

FEW_CHANNELS = 4  # with fewer than these laying them last does not pay
PERIOD, AT_ONCE = 4096, 8  # bytes; channels


class LeanMaxPool:
    """`torch.nn.MaxPool2d`: the same maxima of the same places, to the last bit.

    Args:
        module: that it stands for.
    """

    def __init__(self, module: nn.MaxPool2d) -> None:
        self.module = module

    def serves(self, *args: Any) -> bool:
        """Whether arguments are a batch that a processor has with channels first."""
        x = maps_in(args)
        return (
            x is not None
            and x.shape[1] >= FEW_CHANNELS
            and not x.is_contiguous(memory_format=torch.channels_last)
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(rows, C, H, W) to (rows, C, H', W')."""
        form = self.module
        where = (
            *(_pair(n) for n in (form.kernel_size, form.stride, form.padding, form.dilation)),
            form.ceil_mode,
        )
        pooled: Tensor = _Pooled.apply(x, where)
        return pooled


def max_pool(module: nn.Module) -> LeanMaxPool | None:
    """What runs in the place of a module; None where it is to run as it is."""
    if type(module) is not nn.MaxPool2d or module.return_indices or "forward" in vars(module):
        return None
    return LeanMaxPool(module)


def channels_last(x: Tensor) -> Tensor:
    """A copy of (rows, C, H, W) with channels last.

    Where all channels of a point share the same places of a processor's first cache, which are
    4,096 bytes apart, few are copied at once: together they would drive each other out.
    """
    if x.shape[2] * x.shape[3] * x.itemsize % PERIOD:
        return x.contiguous(memory_format=torch.channels_last)
    found = torch.empty_like(x, memory_format=torch.channels_last)
    for part, given in zip(found.split(AT_ONCE, 1), x.split(AT_ONCE, 1), strict=True):
        part.copy_(given)
    return found


def _pair(sizes: int | tuple[int, int]) -> list[int]:
    return [sizes, sizes] if isinstance(sizes, int) else list(sizes)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, where: tuple[Any, ...]) -> Tensor:
        last = channels_last(x)
        output, places = torch.ops.aten.max_pool2d_with_indices.default(last, *where)
        ctx.where = where
        ctx.save_for_backward(x, places.contiguous())
        return output.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        x, places = ctx.saved_tensors
        backward = torch.ops.aten.max_pool2d_with_indices_backward.default
        return backward(slope.contiguous(), x, *ctx.where, places), None
