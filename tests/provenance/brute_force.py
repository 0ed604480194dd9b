"""Brute force for rules: change records numerically and see that nothing unmarked moves."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpnorm.provenance.call import tensors_of
from dpnorm.provenance.tracer import RecordTracer

BITS = (1, 2, 4, 8)


def by_row(tensor: Tensor, dim: int = 0) -> np.ndarray:
    """The mask in which slice i along `dim` belongs to record i (modulo 4)."""
    shape = [1] * tensor.dim()
    shape[dim] = tensor.shape[dim]
    lines = np.array([BITS[i % 4] for i in range(tensor.shape[dim])], np.uint8)
    return np.broadcast_to(lines.reshape(shape), tuple(tensor.shape))


def scattered(tensor: Tensor, seed: int = 0) -> np.ndarray:
    """A mask that gives every element at most one record, at random, a quarter of them none."""
    draw = np.random.default_rng(seed).integers(0, 5, tuple(tensor.shape))
    return np.where(draw == 4, 0, 1 << draw % 8).astype(np.uint8)


def traced(
    function: Callable[..., Any], inputs: Sequence[Tensor], masks: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], RecordTracer]:
    """Runs a function under the tracer; the masks of all tensors it returns, and the tracer."""
    copies = [tensor.detach().clone() for tensor in inputs]
    tracer = RecordTracer()
    for tensor, mask in zip(copies, masks, strict=True):
        tracer.table.write(tensor, mask)
    torch.manual_seed(0)
    with tracer:
        out = function(*copies)
    return [tracer.table.read(tensor) for tensor in tensors_of(out)], tracer


def assert_sound(
    function: Callable[..., Any],
    inputs: Sequence[Tensor],
    masks: Sequence[np.ndarray],
    *,
    trials: int = 6,
    seed: int = 0,
    allow_unknown: bool = False,
    exact: bool = False,
) -> None:
    """Asserts that no output element moves outside of its mask.

    One record, and two records together, are replaced by fresh values: floating-point elements by
    normal ones of several scales, integer and boolean elements by a shuffle of the values that the
    tensor holds. Elements of a floating-point output that are equal up to rounding did not move.

    Args:
        function: torch operators on the inputs; returns tensors (nested is fine). Random state is
            the same on each run.
        inputs: the tensors.
        masks: of the inputs, one record an element at most; elements with no bit never change.
        trials: fresh values for each set of records.
        seed: of the fresh values.
        allow_unknown: whether an operator without a rule is accepted.
        exact: also assert that every marked element of some record did move at least once, so that
            the rule does not say too much (for float functions without zero derivatives).
    """
    found, tracer = traced(function, inputs, masks)
    unknown = [event.name for event in tracer.trace.of("unknown")]
    assert allow_unknown or not unknown, f"operators without a rule: {unknown}"
    base = _run(function, inputs)
    assert [tuple(b.shape) for b in base] == [m.shape for m in found]
    moved_ever = [np.zeros(m.shape, np.uint8) for m in found]
    generator = torch.Generator().manual_seed(seed)
    for count in (1, 2):
        for records in combinations(BITS, count):
            chosen = sum(records)
            for trial in range(trials):
                changed = [
                    _replaced(t, (m & chosen) != 0, generator, 10.0 ** (trial % 3 - 1))
                    for t, m in zip(inputs, masks, strict=True)
                ]
                after = _run(function, changed)
                for index, (old, new, mask) in enumerate(zip(base, after, found, strict=True)):
                    if old.shape != new.shape:  # a data-dependent shape must be marked whole
                        assert bool(((mask & chosen) != 0).all())
                        continue
                    moved = ~_same(old, new)
                    outside = moved & ((mask & chosen) == 0)
                    assert not outside.any(), (
                        f"output {index}: records {records} moved elements "
                        f"{np.argwhere(outside)[:5].tolist()} that are not marked"
                    )
                    if count == 1:
                        moved_ever[index] |= np.where(moved, chosen, 0).astype(np.uint8)
    if exact:
        for index, (mask, moved) in enumerate(zip(found, moved_ever, strict=True)):
            surplus = mask & ~moved
            assert not surplus.any(), f"output {index} is marked where nothing moves: {surplus}"


def _run(function: Callable[..., Any], inputs: Sequence[Tensor]) -> list[Tensor]:
    torch.manual_seed(0)
    out = function(*[tensor.detach().clone() for tensor in inputs])
    return [tensor.detach().clone() for tensor in tensors_of(out)]


def _replaced(tensor: Tensor, where: np.ndarray, rng: torch.Generator, scale: float) -> Tensor:
    chosen = torch.from_numpy(np.array(where))
    if tensor.is_floating_point() or tensor.is_complex():
        fresh = torch.randn(tensor.shape, generator=rng, dtype=torch.float64) * scale
        return torch.where(chosen, fresh.to(tensor.dtype), tensor)
    order = torch.randperm(tensor.numel(), generator=rng)
    return torch.where(chosen, tensor.flatten()[order].view(tensor.shape), tensor)


def _same(old: Tensor, new: Tensor) -> np.ndarray:
    if not (old.is_floating_point() or old.is_complex()):
        return (old == new).numpy()
    scale = max(float(old.abs().max()), float(new.abs().max()), 1e-30) if old.numel() else 1.0
    close = torch.isclose(old, new, rtol=1e-6, atol=1e-9 * min(scale, 1e3), equal_nan=True)
    return close.numpy()
