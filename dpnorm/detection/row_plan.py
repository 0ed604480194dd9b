"""Which rows of each module belong to which record, read off the masks."""

from collections.abc import Mapping

import numpy as np

from dpnorm.detection.isolation import Isolation, ModuleCall, record_bits, row_bits
from dpnorm.gradients import Rows
from dpnorm.provenance import Mask
from dpnorm.provenance.masks import bits


def row_plan(isolation: Isolation) -> dict[str, Rows]:
    """How the rows of each module's arguments and gradients are ordered, by path.

    Modules are left out whose rows mix records, or are in no order that can be regrouped, or that
    run on no record at all.
    """
    plan: dict[str, Rows] = {}
    spoilt: set[str] = set()
    for call in isolation.calls:
        found = _rows_of(call, isolation.records)
        if found is None or plan.setdefault(call.path, found) != found:
            spoilt.add(call.path)
    return {path: rows for path, rows in plan.items() if path not in spoilt}


def unit_of(path: str, plan: Mapping[str, Rows]) -> str | None:
    """The innermost module at or above a path whose rows are known, or None."""
    while path:
        if path in plan:
            return path
        path = path.rpartition(".")[0]
    return path if path in plan else None


def _rows_of(call: ModuleCall, records: int) -> Rows | None:
    lines = record_bits(call.first_bit, records)
    shared = tuple(not bits(mask) for mask in call.activations)
    if any(alike and records in m.shape for m, alike in zip(call.activations, shared, strict=True)):
        return None  # constants as long as the batch: a hidden state, a padding mask
    masks = [m for m, alike in zip(call.activations, shared, strict=True) if not alike]
    if not masks:
        return None
    masks += [gradient for gradient in call.gradients if bits(gradient)]
    fits = [_orders(mask, lines) for mask in masks]
    common = set.intersection(*(orders for orders, _ in fits))
    if not common:
        return None
    folded = any(rows != records for _, rows in fits)
    return Rows("record-major" if "record-major" in common else "record-minor", folded, shared)


def _orders(mask: Mask, lines: np.ndarray) -> tuple[set[str], int]:
    """The orders in which a mask's rows can be regrouped, and how many rows it has."""
    if not mask.ndim or len(mask) % len(lines) or not len(mask):
        return set(), 0
    rows, each = row_bits(mask), len(mask) // len(lines)
    expected = {"record-major": np.repeat(lines, each), "record-minor": np.tile(lines, each)}
    return {name for name, bits in expected.items() if not (rows & ~bits).any()}, len(mask)
