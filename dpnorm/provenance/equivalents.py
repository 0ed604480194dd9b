"""Cross entropy, whose lowering counts the targets that are not ignored.

The count depends on the records only where a target is ignored. Where none is, on the targets at
hand, a lowering without the count computes the same number, and is traced in its place.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from dpnorm.provenance.tracer import RecordTracer

NEVER_A_CLASS = -100  # torch's default ignore_index


def cross_entropy(
    tracer: "RecordTracer", args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    """The loss by the lowering without a count, or None where torch's own is to be run.

    Reports an explicit ignore_index that these targets do not hit: other targets may.
    """
    names = (
        "input",
        "target",
        "weight",
        "size_average",
        "ignore_index",
        "reduce",
        "reduction",
        "label_smoothing",
    )
    given = dict(zip(names, args, strict=False)) | kwargs
    target, ignored = given.get("target"), given.get("ignore_index", NEVER_A_CLASS)
    averaged = given.get("reduction", "mean") == "mean" and given.get("size_average") in (
        None,
        True,
    )
    if not isinstance(target, Tensor) or target.is_floating_point() or not averaged:
        return None
    with tracer.quietly():
        hit = bool((target.detach().cpu().numpy() == ignored).any())
    if hit or given.get("weight") is not None:
        return None
    if ignored != NEVER_A_CLASS:
        tracer.report("ignorable", "cross_entropy", 0)
    smoothing = given.get("label_smoothing", 0.0)
    if not smoothing:
        return None
    logits = given["input"]
    classes = 1 if logits.dim() > 1 else 0
    plain = F.cross_entropy(logits, target, ignore_index=ignored)
    spread = -torch.log_softmax(logits, classes).mean()
    return (1 - smoothing) * plain + smoothing * spread
