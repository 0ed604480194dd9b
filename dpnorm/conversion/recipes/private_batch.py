"""Private statistics: BatchNorm's, released with noise at earlier steps."""

from torch import nn

from dpnorm.conversion.affine import initial_affine
from dpnorm.conversion.recipes.registry import Groups, Init, recipe
from dpnorm.conversion.source import SourceNorm
from dpnorm.norms import PrivateBatchNorm

RECORD_SHARE = 0.5  # see `dpnorm.norms.ChannelNorm`; docs/privacy.md has the numbers
_MEASURED = 0.05  # variance of the error of a trained network's means, in variances of the channel


@recipe(
    "private-batch",
    order=60,
    summary="noisy statistics, released with the gradients under one account",
    safe=True,
    preserves="approximately",
    data="running statistics to start from; the private batches, under the engine's account",
    paper="Tramer and Boneh, arXiv 2011.11660, for noisy statistics; their joint release is ours",
    hyperparameters={
        "eps": "the BatchNorm's own",
        "momentum": "by the size of the noise",
        "record_share": "0.5",
    },
)
def private_batch(source: SourceNorm, init: Init, groups: Groups) -> tuple[nn.Module, str]:
    """Starts from the running statistics, which only dpnorm.PrivacyEngine moves."""
    start = initial_affine(source, init, lambda: (source.mean, source.var), eps=source.eps)
    norm = PrivateBatchNorm.with_statistics(
        source.mean,
        source.var,
        start.weight,
        start.bias,
        eps=source.eps,
        record_share=RECORD_SHARE,
        uncertainty=_MEASURED if source.measured else 1.0,
    )
    origin = "running" if source.measured else "initial"
    return norm, f"starts from the {origin} statistics; scale and shift {start.how}"
