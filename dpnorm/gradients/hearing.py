"""The gradient of what a module gave, also where it is written in place afterwards.

The hook of a tensor hears the gradient of its value when the hook was registered, whatever is
written to the tensor later. That of a view does not: once the view is written, autograd goes from
what came of it to the tensor that it is a view of, and the view's own node is never reached.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

# What they give in some shapes is a view of a tensor of the same numbers that nobody else has
_VIEWING = (nn.Linear, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def hear(
    module: nn.Module, output: Tensor, heard: Callable[[Tensor], Any]
) -> Callable[[], bool] | None:
    """Has a function called with the gradient of an output, in the backward pass.

    Args:
        module: that gave the output.
        output: which requires a gradient.
        heard: takes the gradient, of the shape of the output.

    Returns:
        Tells whether the gradient was lost, since the output was written in place; None where it
        cannot be.
    """
    base = output._base
    if base is None:
        output.register_hook(heard)
        return None
    alike = base.requires_grad and base.numel() == output.numel()
    if type(module) in _VIEWING and alike and base.is_contiguous() and output.is_contiguous():
        shape = output.shape
        base.register_hook(lambda gradient: heard(gradient.reshape(shape)))
        return None
    output.register_hook(heard)
    watched = output.detach()  # which shares the version, and holds no graph
    before = watched._version
    return lambda: watched._version != before
