"""Weight standardization of the convolution before the norm, and GroupNorm in the norm's place."""

from dpnorm.conversion.recipes.grouped import EPS_RULE, GROUP_WIDTH, group
from dpnorm.conversion.recipes.registry import Exchange, Groups, Init, recipe
from dpnorm.conversion.source import SourceNorm
from dpnorm.norms import WeightStandardizedConv
from dpnorm.norms.weight_standardized import CONVOLUTIONS, fan_in


@recipe(
    "weight-standardized",
    order=45,
    summary="standardized kernels of the convolution before, then GroupNorm",
    safe=True,
    preserves="approximately",
    data="none",
    paper="Qiao et al., arXiv 1903.10520; De et al., arXiv 2204.13650",
    hyperparameters={"groups": f"C / {GROUP_WIDTH}, at least 1", "eps": EPS_RULE},
    wants_preceding=True,
)
def weight_standardized(source: SourceNorm, init: Init, groups: Groups) -> Exchange:
    """GroupNorm behind a WeightStandardizedConv, where the layer before is a convolution.

    With "match" the kernels' gain and offset are the original's own standard deviation and mean,
    so that the convolution keeps its function exactly and the norm is matched as for "group".
    Otherwise they are 1 and 0, the published form.
    """
    norm, detail = group(source, init, groups)
    conv = source.preceding
    if type(conv) not in CONVOLUTIONS or conv is None or fan_in(conv) < 2:
        return Exchange(norm, f"{detail}; no convolution known before it to standardize")
    standardized = WeightStandardizedConv(conv, preserve=init == "match")
    return Exchange(norm, f"{detail}; {source.preceding_path} standardized", standardized)
