"""Root-mean-square normalization over all channels of a record."""

import torch
from torch import nn

from dpnorm.conversion.affine import initial_affine, set_affine
from dpnorm.conversion.moments import mean_square
from dpnorm.conversion.recipes.grouped import EPS_RULE, groups_for
from dpnorm.conversion.recipes.registry import Groups, Init, recipe
from dpnorm.conversion.source import SourceNorm
from dpnorm.norms import RecordRMSNorm


@recipe(
    "rms",
    order=35,
    summary="root mean square of all channels of a record, with a shift",
    safe=True,
    preserves="approximately",
    data="none",
    paper="Zhang and Sennrich, arXiv 1910.07467",
    hyperparameters={"eps": EPS_RULE},
)
def rms(source: SourceNorm, init: Init, groups: Groups) -> tuple[nn.Module, str]:
    """RecordRMSNorm: nothing is subtracted, so the matched mean is 0."""
    groups_for(source, 1)
    initial = initial_affine(
        source,
        init,
        lambda: (torch.zeros_like(source.mean), mean_square(source.mean, source.var)),
    )
    layer = set_affine(RecordRMSNorm(source.channels), initial)
    channels = f"all {source.channels} channels"
    return layer, f"root mean square of {channels}; scale and shift {initial.how}"
