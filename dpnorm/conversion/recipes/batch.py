"""The baseline: BatchNorm as it is."""

from dpnorm.conversion.recipes.registry import Variant, register

register(
    Variant(
        "batch",
        order=0,
        summary="batch statistics: the baseline, never under DP-SGD",
        safe=False,
        preserves="exactly",
        data="the batch",
        paper="Ioffe and Szegedy, arXiv 1502.03167",
    )
)
