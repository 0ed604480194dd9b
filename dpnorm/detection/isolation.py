"""What two traced training steps left behind: the masks from which the verdict is read."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from dpnorm.provenance import Mask, Trace
from dpnorm.provenance.masks import bits, reduce_or

RECORDS = 4  # bits for one batch; two batches in a row have fresh ones


@dataclass
class ModuleCall:
    """What one call of a module took and what gradients came back, as masks.

    `inner` modules own parameters but stand below one that Opacus differentiates whole; a
    `container` owns none itself, and could be differentiated whole.
    """

    path: str
    module: nn.Module
    first_bit: int
    activations: list[Mask]
    inner: bool = False
    container: bool = False
    gradients: list[Mask] = field(default_factory=list)


@dataclass
class OutputMasks:
    """The masks of the model's outputs in one batch, and of the gradients that reached them."""

    first_bit: int
    outputs: list[Mask]
    gradients: list[Mask] = field(default_factory=list)


@dataclass
class Isolation:
    """Everything that the verdict is read from.

    Attributes:
        records: in each of the two batches.
        trace: operators without a rule, escapes, and where elements were mixed.
        calls: the calls of the modules that Opacus samples.
        outputs: of the model, for each batch.
        state: parameters and buffers that carry bits afterwards, by name.
        backward: whether a backward pass was run.
        in_place: where outputs of sampled modules are modified in place, by path.
        output_storages: of sampled modules, to know them when they are written.
        writes: how often each storage was written in place.
        batch_norms: how far a record's output moved when the others were exchanged in the input
            of each BatchNorm-family layer that uses its batch. Their coupling is measured here, and
            the masks go on as if they were frozen, so that what else couples records shows.
        first_bit: of the batch that is running.
        foreign_backward: whether the backward pass runs code that is not torch's.
        coins: whether a random draw decided what Python did, so that another seed may take another
            path.
        kept: bits of tensors that are still alive after both steps, outside of the model's
            parameters and buffers.
        silent: whether the model gave no tensor that could be judged.
        edges: of the graph, at the outputs of the calls of modules that own parameters, and whose.
        exposed: masks of gradients that came through code of the user's to where a parameter is
            used, by the parameter's name.
        plain: copies of the output tensors of the first batch, with constant random draws.
        written: copies of the model's buffers after the first batch.
        exchanged: how far a record's output moved in the second batch, in which every record but
            the first was another one; None where that was not tried.
    """

    records: int
    trace: Trace
    calls: list[ModuleCall]
    outputs: list[OutputMasks]
    state: dict[str, int]
    backward: bool
    first_bit: int = 0
    foreign_backward: bool = False
    coins: bool = False
    kept: int = 0
    silent: bool = False
    edges: list[tuple[GradientEdge, nn.Module]] = field(default_factory=list)
    exposed: list[tuple[str, Mask]] = field(default_factory=list)
    in_place: dict[str, str] = field(default_factory=dict)
    output_storages: dict[int, str] = field(default_factory=dict)
    writes: Counter[int] = field(default_factory=Counter)
    batch_norms: dict[str, float] = field(default_factory=dict)
    plain: list[Tensor] = field(default_factory=list)
    written: list[Tensor] = field(default_factory=list)
    exchanged: float | None = None


def record_bits(first: int, records: int) -> np.ndarray:
    """The bits of records 0, 1, ... of a batch: uint8[records]."""
    return np.array([1 << (first + i) for i in range(records)], np.uint8)


def row_bits(mask: Mask) -> np.ndarray:
    """The bits of each row, OR over everything behind dimension 0: uint8[rows]."""
    if mask.ndim == 0:
        return np.array([bits(mask)], np.uint8)
    if mask.ndim == 1:
        return np.asarray(mask)
    return np.asarray(reduce_or(mask, tuple(range(1, mask.ndim)), keepdim=False))
