"""Scaled dot-product attention: a query sees its own row, all visible keys, values and its bias.

Batch entries and heads stay apart. Under `is_causal` query i sees keys up to i (up to i + S - L
where there are more keys than queries, which covers both ways of aligning the triangle). That a
masked position has weight zero holds for finite values; an infinite one would leak through 0 * inf.
Random seeds and offsets carry no bits.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dpnorm.provenance.call import Call
from dpnorm.provenance.masks import Mask, bits, clean, core, reduce_or, union
from dpnorm.provenance.registry import rule
from dpnorm.provenance.rules.matmul import known, present

_FROM_SHAPES = ("rng_state", "unused", "philox_seed", "philox_offset")
_LENGTHS = ("seqused_k", "seqlen_k", "block_table")
_PACKED = ("cum_seq_q", "cum_seq_k", "cu_seqlens_q", "cu_seqlens_k", *_LENGTHS)
_KNOWN = ("query", "key", "value", "attn_bias", "attn_mask", "bias")


@dataclass(frozen=True)
class Operands:
    """Masks in the layout (..., heads, length, features) and what decides who sees whom."""

    query: Mask
    key: Mask
    value: Mask
    bias: Mask | None
    causal: bool
    extra: int  # bits of other tensor arguments, such as scales

    @property
    def reach(self) -> int | None:
        """How far past its own position a query sees under a causal mask; None without one."""
        return max(0, self.key.shape[-2] - self.query.shape[-2]) if self.causal else None


def _operands(call: Call, swap: bool) -> Operands:
    masks = [_heads_first(known(call, name), swap) for name in _KNOWN[:3]]
    names = [name for name in _KNOWN[3:] if call.arguments.get(name) is not None]
    bias = known(call, names[0]) if names else None
    rows = ("grad_out", "grad_out_", "out", "logsumexp")
    others = [t for n, t in call.arguments.items() if n not in (*_KNOWN, *rows)]
    others = [t for t in others if isinstance(t, Tensor)]
    if bias is not None and bias.ndim < 2:
        bias = np.asarray(bits(bias), np.uint8).reshape(1, 1)
    causal = bool(call.arguments.get("is_causal", False))
    return Operands(masks[0], masks[1], masks[2], bias, causal, call.bits(*others))


def _heads_first(mask: Mask, swap: bool) -> Mask:
    return np.swapaxes(mask, -3, -2) if swap else mask


def _for_heads(mask: Mask, heads: int) -> Mask:
    """Keys or values of fewer heads, repeated for the query heads that share them."""
    small = core(mask)
    if mask.ndim < 3 or small.shape[-3] in (1, heads):
        return small
    return np.repeat(small, heads // mask.shape[-3], axis=-3)


def _from_heads(mask: Mask, heads: int) -> Mask:
    """OR over the query heads that share a key head."""
    small = core(mask)
    if mask.ndim < 3 or small.shape[-3] in (1, heads):
        return small
    shape = (*small.shape[:-3], heads, small.shape[-3] // heads, *small.shape[-2:])
    return np.bitwise_or.reduce(small.reshape(shape), axis=-3)


def _seen(mask: Mask, queries: int, reach: int | None) -> Mask:
    """OR over the keys (dimension -2) that each query sees."""
    small = core(mask)
    if reach is None or small.shape[-2] <= 1:
        return np.bitwise_or.reduce(small, axis=-2, keepdims=True)
    prefix = np.bitwise_or.accumulate(small, axis=-2)
    last = np.minimum(np.arange(queries) + reach, small.shape[-2] - 1)
    return np.take(prefix, last, axis=-2)


def _seen_by(mask: Mask, keys: int, reach: int | None) -> Mask:
    """OR over the queries (dimension -2) that see each key; one beyond all gets the last's."""
    small = core(mask)
    if reach is None or small.shape[-2] <= 1:
        return np.bitwise_or.reduce(small, axis=-2, keepdims=True)
    suffix = np.flip(np.bitwise_or.accumulate(np.flip(small, -2), axis=-2), -2)
    first = np.minimum(np.maximum(np.arange(keys) - reach, 0), small.shape[-2] - 1)
    return np.take(suffix, first, axis=-2)


def _joined(masks: list[Mask]) -> Mask:
    return union(np.broadcast_shapes(*[mask.shape for mask in masks]), masks)


def _rows(mask: Mask) -> Mask:
    """OR over features, on the core."""
    return np.bitwise_or.reduce(core(mask), axis=-1, keepdims=True)


def attended(given: Operands) -> tuple[Mask, Mask]:
    """The masks of (output, logsumexp with a last dimension of length 1)."""
    queries = given.query.shape[-2]
    heads = given.query.shape[-3] if given.query.ndim > 2 else 1
    weights = [
        _rows(given.query),
        _seen(_for_heads(_rows(given.key), heads), queries, given.reach),
        np.asarray(given.extra, np.uint8),
    ]
    if given.bias is not None:
        weights.append(_rows(given.bias))
    normalizer = _joined(weights)
    values = _seen(_for_heads(given.value, heads), queries, given.reach)
    return _joined([normalizer, values]), normalizer


def _outputs(call: Call, out: Mask, normalizer: Mask, everything: int) -> list[Mask]:
    """Masks in the order of the operator's named results."""
    results = call.out if isinstance(call.out, (tuple, list)) else (call.out,)
    masks = []
    for index, (returned, tensor) in enumerate(
        zip(call.func._schema.returns, results, strict=True)
    ):
        if not isinstance(tensor, Tensor):
            continue
        name = returned.name or ""
        if index == 0:
            masks.append(out)
        elif "sumexp" in name:
            masks.append(_fitting(normalizer[..., 0], tuple(tensor.shape), everything))
        elif tensor.numel() == 0 or name in _FROM_SHAPES:
            masks.append(clean(tuple(tensor.shape)))
        else:
            masks.append(np.asarray(everything, np.uint8))
    return masks


def _fitting(mask: Mask, shape: tuple[int, ...], everything: int) -> Mask:
    """The mask if it broadcasts to the shape, ORed over the length that some kernels pad."""
    for candidate in (mask, reduce_or(mask, -1)):
        if all(a in (1, b) for a, b in zip(candidate.shape[::-1], shape[::-1], strict=False)):
            return candidate
    return np.asarray(everything, np.uint8)


def _is_plain(call: Call) -> bool:
    """Whether rows are dense (batch, length): no packed sequences, pages or lengths in tensors."""
    if call.name.startswith(("aten::_scaled", "aten::scaled")):
        return True
    return all(call.arguments.get(name) is None for name in _PACKED) and call["query"].dim() == 4


@rule(
    "aten::scaled_dot_product_attention",
    "aten::_scaled_dot_product_attention_math",
    "aten::_scaled_dot_product_attention_math_for_mps",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
    "aten::_flash_attention_forward",
    "aten::_efficient_attention_forward",
    "aten::_cudnn_attention_forward",
)
def attention(call: Call) -> list[Mask]:
    """Attention in (batch, heads, length, features), or length before heads in the raw kernels."""
    everything = call.all_bits()
    whole = np.asarray(everything, np.uint8)
    if not _is_plain(call) or call.name == "aten::_cudnn_attention_forward":
        return _outputs(call, whole, whole.reshape(1, 1), everything)
    swap = not call.name.startswith(("aten::_scaled", "aten::scaled"))
    out, normalizer = attended(_operands(call, swap))
    return _outputs(call, _heads_first(out, swap), normalizer, everything)


@rule(
    "aten::_scaled_dot_product_flash_attention_backward",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    "aten::_scaled_dot_product_efficient_attention_backward",
    "aten::_scaled_dot_product_cudnn_attention_backward",
    "aten::_scaled_dot_product_fused_attention_overrideable_backward",
)
def attention_backward(call: Call) -> list[Mask]:
    """A query's gradient sees what the query saw; a key's and a value's sees what saw it."""
    given = _operands(call, swap=False)
    queries, keys = given.query.shape[-2], given.key.shape[-2]
    heads, key_heads = given.query.shape[-3], given.key.shape[-3]
    grad = known(call, "grad_out" if "grad_out" in call.arguments else "grad_out_")
    total = known(call, "logsumexp")
    own = [_rows(given.query), _rows(grad), _rows(known(call, "out"))]
    own.append(np.asarray(given.extra, np.uint8))
    whole = np.asarray(bits(total), np.uint8)
    if total.ndim == 3 and total.shape[:2] == given.query.shape[:2]:
        own.append((total if total.shape[2] == queries else reduce_or(total, 2))[..., None])
    else:
        own.append(whole)
    row = _joined(own)
    both = _joined([_rows(given.key), _rows(given.value)])
    bias = [] if given.bias is None else [given.bias]
    seen = _joined([row, _seen(_for_heads(both, heads), queries, given.reach)])
    for_query = _joined([seen, *[_rows(mask) for mask in bias]])
    columns = [np.swapaxes(reduce_or(mask, -2), -1, -2) for mask in bias]
    seers = _joined([_seen_by(row, keys, given.reach), *columns])
    full = np.broadcast_to(seers, np.broadcast_shapes(seers.shape, (1, 1, 1, 1)))
    for_key = _joined([_from_heads(full, key_heads), both])
    masks = [for_query, for_key, for_key]
    if len(call.out) > 3:
        masks.append(_bias_gradient(call, [row, *bias], _for_heads(both, heads)))
    return present(call, masks)


def _bias_gradient(call: Call, rows: list[Mask], both: Mask) -> Mask:
    """Element (i, j) sees query i and key j; dimensions that were broadcast are summed."""
    if call.out[3] is None:
        return np.asarray(0, np.uint8)
    full = _joined([*rows, np.swapaxes(both, -1, -2)])
    shape = (1,) * (full.ndim - call.out[3].dim()) + tuple(call.out[3].shape)
    summed = [d for d in range(full.ndim) if shape[d] == 1]
    reduced = reduce_or(full, summed) if summed else full
    return reduced.reshape(reduced.shape[full.ndim - call.out[3].dim() :])


@rule(
    "aten::_flash_attention_backward",
    "aten::_efficient_attention_backward",
    "aten::_cudnn_attention_backward",
)
def raw_attention_backward(call: Call) -> list[Mask]:
    """The raw kernels: by batch entry where rows are dense, everything otherwise."""
    everything = np.asarray(call.all_bits(), np.uint8)
    if not _is_plain(call) or call.name == "aten::_cudnn_attention_backward":
        return present(call, [everything] * len(call.out))
    batch, entry = call["query"].shape[0], np.zeros((1, 1, 1, 1), np.uint8)
    for tensor in call.inputs():
        mask = call.mask(tensor)
        if mask is not None and mask.ndim > 2 and mask.shape[0] == batch:
            by_entry = reduce_or(mask, range(1, mask.ndim), keepdim=False)
            entry = _joined([entry, by_entry[:, None, None, None]])
        else:
            entry = entry | np.uint8(call.bits(tensor))
    return present(call, [entry, entry, entry, everything][: len(call.out)])
