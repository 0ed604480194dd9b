"""The fused attention and encoder layers that torch runs in evaluation without gradients."""

import numpy as np

from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, reduce_or
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.matmul import known


def _by_entry(call: Call, names: tuple[str, ...]) -> Mask:
    """(batch, 1, 1): OR over length and features of the named (batch, length, features) arguments.

    A mask (batch, length) or (batch, heads, length, length) stays with its entry; one of another
    shape, and all of the weights, reach every entry.
    """
    batch, entry = call[names[0]].shape[0], np.zeros((1, 1, 1), np.uint8)
    for name in names:
        entry = entry | reduce_or(known(call, name), (1, 2))
    rest = [tensor for tensor in call.inputs() if all(tensor is not call[name] for name in names)]
    if call.arguments.get("mask") is not None:
        mask = known(call, "mask")
        padding = mask.ndim == 2 and call.arguments.get("mask_type") == 1
        if mask.shape[0] == batch and (padding or mask.ndim == 4):
            own = reduce_or(mask, range(1, mask.ndim), keepdim=False)
            entry = entry | own[:, None, None]
            rest = [tensor for tensor in rest if tensor is not call["mask"]]
    return entry | np.uint8(call.bits(*rest))


@rule("aten::_transformer_encoder_layer_fwd")
def encoder_layer(call: Call) -> Mask:
    """A whole encoder layer: positions of a sequence see each other."""
    return _by_entry(call, ("src",))


@rule("aten::_native_multi_head_attention", "aten::_triton_multi_head_attention")
def multi_head_attention(call: Call) -> list[Mask]:
    """Attention with its projections: output, and weights (averaged over heads or not)."""
    entry = _by_entry(call, ("query", "key", "value"))
    outputs = call.out if isinstance(call.out, (tuple, list)) else (call.out,)
    given = [out for out in outputs if out is not None]
    return [entry.reshape(-1, *[1] * (out.dim() - 1)) if out.numel() else _none() for out in given]


def _none() -> Mask:
    return np.asarray(0, np.uint8)


@rule("aten::_transform_bias_rescale_qkv")
def transform_qkv(call: Call) -> list[Mask]:
    """(B, T, 3 D) to three times (B, heads, T, D / heads): positions stay apart."""
    rows = reduce_or(known(call, "qkv"), -1) | np.uint8(call.bits("qkv_bias"))
    return [rows[:, None]] * 3


@rule("aten::_fused_sdp_choice")
def sdp_choice(call: Call) -> list[Mask]:
    """Which kernel to run: decided by shapes, types and devices, never by values."""
    return []
