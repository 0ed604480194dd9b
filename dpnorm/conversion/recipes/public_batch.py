"""Public statistics: BatchNorm's, of public records only."""

from torch import nn

from dpnorm.conversion.affine import initial_affine
from dpnorm.conversion.recipes.private_batch import RECORD_SHARE
from dpnorm.conversion.recipes.registry import Groups, Init, recipe
from dpnorm.conversion.source import SourceNorm
from dpnorm.norms import PublicBatchNorm


@recipe(
    "public-batch",
    order=55,
    summary="statistics of public records, fresh at each step",
    safe=True,
    preserves="approximately",
    data="public records at each step",
    paper="Davody et al., arXiv 2006.10919, with public rows only",
    hyperparameters={"eps": "the BatchNorm's own", "record_share": "0.5"},
)
def public_batch(source: SourceNorm, init: Init, groups: Groups) -> tuple[nn.Module, str]:
    """Starts from the running statistics; public records replace them when training begins."""
    start = initial_affine(source, init, lambda: (source.mean, source.var), eps=source.eps)
    norm = PublicBatchNorm.with_statistics(
        source.mean,
        source.var,
        start.weight,
        start.bias,
        eps=source.eps,
        record_share=RECORD_SHARE,
    )
    origin = "running" if source.measured else "initial"
    return norm, f"{origin} statistics until public ones come; scale and shift {start.how}"
