"""No normalization at all."""

from torch import nn

from dpnorm.conversion.recipes.registry import Groups, Init, recipe
from dpnorm.conversion.source import SourceNorm


@recipe(
    "none",
    order=10,
    summary="no normalization",
    safe=True,
    preserves="no",
    data="none",
    paper="an arm of Nasirigerdeh et al., arXiv 2210.00053",
)
def none(source: SourceNorm, init: Init, groups: Groups) -> tuple[nn.Module, str]:
    """Removes the layer."""
    return nn.Identity(), "removed"
