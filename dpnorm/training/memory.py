"""How many records a training runs at once, by the memory that they take."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from dpnorm.detection.preserve import preserved

SHARE = 4  # of the memory one part is taken: other processes, and the heap, want theirs
PASSES = 3.0  # a value that is kept for the backward pass, its gradient, and what a layer works in
SAMPLES = 2.0  # the gradients of the records, and a copy that is scaled, masked or put together
MODES_WITH_SAMPLES = ("hooks", "lean", "functorch", "ew")


def records_that_fit(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    mode: str | None,
) -> int:
    """How many records can run forward and backward within a part of the memory; at least 1.

    The memory is all that the machine (or its control group, or the CUDA device) has, so that the
    number is the same at each run.

    Args:
        network: in training mode; it comes back as it was.
        loss: of its output and the labels.
        x: a few random records.
        y: their labels.
        mode: of gradient sampling; None for plain training, which keeps no gradients of records.
    """
    values = bytes_kept(network, loss, x, y) / len(x)
    each = PASSES * values
    if mode is not None:
        own = [p for p in network.parameters() if p.requires_grad]
        sizes = [p.numel() * p.element_size() for p in own]
        each += SAMPLES * (sum(sizes) if mode in MODES_WITH_SAMPLES else max(sizes))
    return max(1, int(memory_of(x.device) / SHARE / max(each, 1.0)))


def bytes_kept(
    network: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> int:
    """What a forward pass keeps for the backward pass, and the batch; parameters apart."""
    kept = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes()}
    known = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        preserved(network),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
    ):
        loss(network(x), y)
    return sum(kept.values())


def memory_of(device: torch.device) -> int:
    """Bytes of memory that this device, or this machine or control group, has in all."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(machine, int(text)) if text.isdecimal() else machine
