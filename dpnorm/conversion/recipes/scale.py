"""GroupNorm, and one more behind each residual sum."""

from torch import nn

from dpnorm.conversion.recipes.grouped import EPS_RULE, GROUP_WIDTH, group
from dpnorm.conversion.recipes.registry import Groups, Init, recipe
from dpnorm.conversion.source import SourceNorm
from dpnorm.conversion.sums import norms_after_sums


@recipe(
    "scale",
    order=25,
    summary="GroupNorm, and one more behind each residual sum",
    safe=True,
    preserves="no",
    data="none",
    paper="Klause et al., arXiv 2203.00324",
    hyperparameters={"groups": f"C / {GROUP_WIDTH}, at least 1", "eps": EPS_RULE},
    prepare=norms_after_sums,
)
def scale(source: SourceNorm, init: Init, groups: Groups) -> tuple[nn.Module, str]:
    """GroupNorm as for "group", in the place of the norms and behind the sums.

    The added layers start with scale 1 and shift 0 and divide each sum by its deviation, which
    changes what a trained network computes. A network without residual sums becomes what "group"
    makes of it.
    """
    return group(source, init, groups)
