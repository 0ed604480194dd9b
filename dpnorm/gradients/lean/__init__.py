"""Layers whose own backward pass yields one gradient a record, and no gradient of the batch.

Hooks add a gradient a record to what autograd computes. Here the weight gradient of the batch,
which DP-SGD never uses, is not computed at all, and kernels of the batch that can give the records'
gradients do.
"""

from dpnorm.gradients.lean import (
    convolution,
    embedding,
    group_norm,
    layer_norm,
    linear,
    rms_norm,
)
from dpnorm.gradients.lean.call import Sink, lean_call
from dpnorm.gradients.lean.convolution import LeanConvolution
from dpnorm.gradients.lean.layer import LEAN_LAYERS, LeanLayer, lean, lean_layer
from dpnorm.gradients.lean.pool import LeanPool, lean_pool

__all__ = [
    "LEAN_LAYERS",
    "LeanConvolution",
    "LeanLayer",
    "LeanPool",
    "Sink",
    "lean",
    "lean_call",
    "lean_layer",
    "lean_pool",
]
# imported for what they register
_FAMILIES = (convolution, embedding, group_norm, layer_norm, linear, rms_norm)
