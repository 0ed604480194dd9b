"""EvoNorm-S0 in the place of a norm and of the activation behind it."""

from torch import nn

from dpnorm.conversion.activations import without_activations
from dpnorm.conversion.affine import EPS, initial_affine, set_affine
from dpnorm.conversion.recipes.grouped import GROUP_WIDTH, groups_for
from dpnorm.conversion.recipes.registry import Groups, Init, recipe
from dpnorm.conversion.source import SourceNorm
from dpnorm.norms import EvoNormS0


@recipe(
    "evonorm",
    order=48,
    summary="a gate and the deviation of groups, for norm and activation in one",
    safe=True,
    preserves="no",
    data="none",
    paper="Liu et al., arXiv 2004.02967",
    hyperparameters={"groups": f"C / {GROUP_WIDTH}, at least 1", "eps": f"{EPS:g}"},
    prepare=without_activations,
)
def evonorm(source: SourceNorm, init: Init, groups: Groups) -> tuple[nn.Module, str]:
    """EvoNormS0: nothing of BatchNorm's function can be matched, so "match" copies."""
    count = groups_for(source, groups)
    start = initial_affine(
        source, "copy" if init == "match" else init, lambda: (source.mean, source.var)
    )
    layer = set_affine(EvoNormS0(source.channels, groups=count), start)
    noun = "group" if count == 1 else "groups"
    size = f"{count} {noun} of {source.channels // count}"
    return layer, f"{size}; scale and shift {start.how}; the function is not kept"
