"""Normalization of one record by the moments of groups of its channels: group, layer, instance."""

from torch import nn

from dpnorm.conversion.affine import DEPTHWISE_SHRINKAGE, EPS, SHRINKAGE, initial_affine, set_affine
from dpnorm.conversion.moments import group_moments
from dpnorm.conversion.recipes.registry import Groups, Init, recipe
from dpnorm.conversion.source import SourceNorm
from dpnorm.errors import ConversionError

EPS_RULE = (
    f"{EPS:g}, and where it is matched {SHRINKAGE:g} variances more "
    f"({DEPTHWISE_SHRINKAGE:g} beside depthwise convolutions)"
)
GROUP_WIDTH = 16  # channels a group, where nothing else is asked for


def groups_for(source: SourceNorm, groups: Groups) -> int:
    """The number of groups for a layer: as asked for, or 16 channels a group.

    By default a group is the narrowest divisor of C that holds at least 16 channels; with fewer
    than 16 channels it is one group.

    Raises:
        ConversionError: the number does not divide the channels, or a group would hold a single
            value.
    """
    C, path = source.channels, source.path
    if groups is None or isinstance(groups, int):
        asked = groups
    elif callable(groups):
        asked = groups(C)
    else:
        asked = groups.get(path)
    if asked is None:
        width = next(d for d in range(min(GROUP_WIDTH, C), C + 1) if C % d == 0)
        asked = C // width
    if asked < 1 or C % asked:
        divisors = [d for d in range(1, C + 1) if C % d == 0]
        raise ConversionError(
            f"{path}: {asked} groups do not divide its {C} channels: take one of {divisors}"
        )
    if asked == C and source.dims in (0, None):
        raise ConversionError(
            f"{path}: {asked} group(s) of 1 channel would hold a single value for records of "
            f"shape ({C},), which erases them: {_way_out(source)}"
        )
    return asked


def _way_out(source: SourceNorm) -> str:
    unknown = "; if the records have more dimensions, public_inputs= shows it"
    remedy = "take fewer groups" if source.channels > 1 else "leave the layer out with select="
    return remedy + (unknown if source.dims is None else "")


def _set_up(layer: nn.Module, source: SourceNorm, init: Init, groups: int) -> tuple[nn.Module, str]:
    initial = initial_affine(source, init, lambda: group_moments(source.mean, source.var, groups))
    return set_affine(layer, initial), initial.how


@recipe(
    "group",
    order=20,
    summary="GroupNorm, 16 channels a group",
    safe=True,
    preserves="approximately",
    data="none",
    paper="Wu and He, arXiv 1803.08494",
    hyperparameters={"groups": f"C / {GROUP_WIDTH}, at least 1", "eps": EPS_RULE},
)
def group(source: SourceNorm, init: Init, groups: Groups) -> tuple[nn.Module, str]:
    """GroupNorm."""
    count = groups_for(source, groups)
    layer, how = _set_up(nn.GroupNorm(count, source.channels, EPS), source, init, count)
    noun = "group" if count == 1 else "groups"
    return layer, f"{count} {noun} of {source.channels // count}; scale and shift {how}"


@recipe(
    "layer",
    order=30,
    summary="all channels of a record together",
    safe=True,
    preserves="approximately",
    data="none",
    paper="Ba, Kiros and Hinton, arXiv 1607.06450",
    hyperparameters={"eps": EPS_RULE},
)
def layer(source: SourceNorm, init: Init, groups: Groups) -> tuple[nn.Module, str]:
    """LayerNorm on records of shape (C,), GroupNorm with one group on maps."""
    C = source.channels
    groups_for(source, 1)
    flat = source.dims == 0
    norm: nn.Module = nn.LayerNorm(C, eps=EPS) if flat else nn.GroupNorm(1, C, EPS)
    norm, how = _set_up(norm, source, init, 1)
    return norm, f"all {C} channels together; scale and shift {how}"


@recipe(
    "instance",
    order=40,
    summary="each channel of a record alone",
    safe=True,
    preserves="no",
    data="none",
    paper="Ulyanov, Vedaldi and Lempitsky, arXiv 1607.08022",
    hyperparameters={"eps": EPS_RULE},
)
def instance(source: SourceNorm, init: Init, groups: Groups) -> tuple[nn.Module, str]:
    """InstanceNorm on maps; where the number of dimensions is not known, C groups of one."""
    C = source.channels
    if source.dims == 0:
        raise ConversionError(
            f"{source.path} normalizes records of shape ({C},): a channel holds one value, and "
            "instance normalization would erase it; take group or layer"
        )
    if source.dims == 2:
        norm: nn.Module = nn.InstanceNorm2d(C, eps=EPS, affine=True)
    elif source.dims == 3:
        norm = nn.InstanceNorm3d(C, eps=EPS, affine=True)
    else:
        norm = nn.GroupNorm(C, C, EPS)
    norm, how = _set_up(norm, source, init, C)
    return norm, f"each of {C} channels alone; scale and shift {how}"
