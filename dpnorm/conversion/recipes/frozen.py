"""Constant statistics: the function of BatchNorm in evaluation."""

from torch import nn

from dpnorm.conversion.affine import initial_affine
from dpnorm.conversion.recipes.registry import Groups, Init, recipe
from dpnorm.conversion.source import SourceNorm
from dpnorm.norms import FrozenBatchNorm


@recipe(
    "frozen",
    order=50,
    summary="constant statistics, trainable scale and shift",
    safe=True,
    preserves="exactly",
    data="running statistics of a trained model, or public records",
    paper="Ioffe and Szegedy, arXiv 1502.03167 (the inference network)",
    hyperparameters={"eps": "the BatchNorm's own"},
)
def frozen(source: SourceNorm, init: Init, groups: Groups) -> tuple[nn.Module, str]:
    """Keeps the running statistics as constants; calibration on public records replaces them."""
    start = initial_affine(source, init, lambda: (source.mean, source.var), eps=source.eps)
    norm = FrozenBatchNorm.with_statistics(
        source.mean, source.var, start.weight, start.bias, eps=source.eps
    )
    origin = "running" if source.measured else "initial"
    return norm, f"{origin} statistics kept as constants; scale and shift {start.how}"
