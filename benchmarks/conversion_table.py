"""Accuracy that a network trained with BatchNorm keeps when its layers are exchanged.

    python benchmarks/conversion_table.py [--eps] [NAME ...]

With --eps it prints instead how much of the source's accuracy matching keeps as eps grows. NAME is
a network (resnet8, vgg-small, mobilenet, mlp, resnet20), a data set (mnist5k, digits) or both as in
resnet8/digits; without any, all. Prints Markdown: test accuracy right after the conversion, without
training, for each variant and way to set scale and shift, beside Opacus's ModuleValidator.fix; then
for resnet20 on mnist5k, refinement with distillation, with its seconds. Everything is fixed by
seeds. One thread.
"""

import sys
import time
from collections.abc import Callable

import torch
from opacus.validators import ModuleValidator
from torch import Tensor, nn

import dpnorm
from dpnorm.conversion.affine import EPS, shrinkage_for
from dpnorm.conversion.refinement import refine
from dpnorm.conversion.synthesis import synthesize
from dpnorm.data import Dataset
from dpnorm.errors import ConversionError
from dpnorm.training import TrainConfig
from dpnorm.training.predict import accuracy

PUBLIC = 64  # records
COUNT, SYNTHESIS_STEPS, DISTILL_STEPS = 128, 150, 600
EPOCHS = {"mnist5k": 8, "digits": 15}
MULTIPLES = (0, 1, 2, 4, 8, 16)
COLUMNS = ("reset", "copy", "match", f"match on {PUBLIC} public")


def mobilenet(width: int = 32) -> nn.Module:
    """Depthwise separable convolutions with BatchNorm, as in arXiv 1704.04861: 9 norm layers."""

    def convolution(c: int, out: int, size: int, stride: int, groups: int) -> list[nn.Module]:
        conv = nn.Conv2d(c, out, size, stride, size // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(out), nn.ReLU()]

    layers = convolution(1, width, 3, 1, 1)
    for out, stride in ((2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1)):
        layers += convolution(width, width, 3, stride, width)
        layers += convolution(width, out, 1, 1, 1)
        width = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def network(name: str, data: Dataset) -> nn.Module:
    """The network with fresh weights of a fixed seed."""
    torch.manual_seed(0)
    if name == "mobilenet":
        return mobilenet()
    channels, height, width = data.shape
    return dpnorm.models.build(name, in_channels=channels, image_size=(height, width))


NETWORKS = ("resnet8", "vgg-small", "mobilenet", "mlp", "resnet20")
DATA = ("mnist5k", "digits")


def trained(name: str, data: Dataset) -> tuple[nn.Module, float]:
    """The network trained with BatchNorm, and its test accuracy."""
    config = TrainConfig(epochs=EPOCHS[data.name], lr=0.05, schedule="cosine", weight_decay=5e-4)
    result = dpnorm.train(network(name, data), data, config)
    return result.model, result.accuracy


def percent(build: Callable[[], nn.Module], data: Dataset) -> str:
    """The accuracy of the built model, or a dash where the variant does not fit."""
    try:
        return f"{100 * accuracy(build(), data.test):.1f}"
    except ConversionError:
        return "-"


def conversions(model: nn.Module, to: str, data: Dataset) -> list[str]:
    """A cell for each of COLUMNS; a variant without parameters to set has one."""
    public = data.public.x[:PUBLIC]
    cells = [
        percent(lambda init=init: dpnorm.convert(model, to, init=init).model, data)
        for init in ("reset", "copy", "match")
    ]
    if to == "none":
        return [cells[0], "", "", ""]
    return [
        *cells,
        percent(lambda: dpnorm.convert(model, to, public_inputs=public).model, data),
    ]


def fixed(model: nn.Module) -> nn.Module:
    """What Opacus makes of the model: GroupNorm, scale 1 and shift 0."""
    return ModuleValidator.fix(model)


def table(name: str, model: nn.Module, source: float, data: Dataset) -> None:
    """Prints the rows of one network."""
    opacus = percent(lambda: fixed(model), data)
    for to, variant in dpnorm.variants().items():
        if to == "none" or (variant.preserves != "no" and to != "batch"):
            cells = " | ".join(conversions(model, to, data))
            start = f"| {name} | {data.name} | {100 * source:.1f} | {opacus} | {to} "
            print(f"{start}| {cells} |", flush=True)


def refinements(model: nn.Module, source: float, data: Dataset) -> None:
    """Prints the accuracy after distillation, on synthesized and on public records."""
    print(f"\nRefinement of resnet20 on {data.name} (source {100 * source:.1f}):\n")
    print(
        "| variant | records | matched | distilled | of the source | making records (s) "
        "| distillation (s) |"
    )
    print("|---|---|---|---|---|---|---|")
    started = time.perf_counter()
    made = synthesize(model, data.shape, count=COUNT, steps=SYNTHESIS_STEPS)
    making = time.perf_counter() - started
    for kind, records, seconds in (
        (f"{COUNT} synthesized", made, making),
        (f"{PUBLIC} public", data.public.x[:PUBLIC], 0.0),
    ):
        print(refined(model, kind, records, seconds, source, data), flush=True)


def refined(
    model: nn.Module, kind: str, records: Tensor, making: float, source: float, data: Dataset
) -> str:
    """One row: GroupNorm matched on the records, then distilled on them."""
    matched, distilled = dpnorm.convert(model, "group"), dpnorm.convert(model, "group")
    paths = [change.path for change in matched.changes]
    refine(model, matched.model, paths, records, match=True)
    started = time.perf_counter()
    refine(model, distilled.model, paths, records, match=True, distill_steps=DISTILL_STEPS)
    seconds = time.perf_counter() - started
    before, after = (accuracy(c.model, data.test) for c in (matched, distilled))
    return (
        f"| group | {kind} | {100 * before:.1f} | {100 * after:.1f} | {100 * after / source:.1f}% "
        f"| {making:.0f} | {seconds:.0f} |"
    )


def kept_by_eps(name: str, model: nn.Module, source: float, data: Dataset) -> None:
    """Prints the share of the source's accuracy that is kept at several eps."""
    for to in ("group", "layer"):
        matched = dpnorm.convert(model, to)
        variances = {c.path: ((c.eps or EPS) - EPS) / shrinkage_for(model) for c in matched.changes}
        cells = []
        for times in MULTIPLES:
            eps = {path: EPS + times * variance for path, variance in variances.items()}
            converted = dpnorm.convert(model, to, eps=eps).model
            cells.append(f"{100 * accuracy(converted, data.test) / source:.1f}")
        start = f"| {name} | {data.name} | {100 * source:.1f} | {to} "
        print(f"{start}| {' | '.join(cells)} |", flush=True)


def chosen(names: list[str]) -> list[tuple[str, str]]:
    """The pairs of network and data set that the names ask for."""
    pairs = [(network, data) for data in DATA for network in NETWORKS]
    allowed = {*NETWORKS, *DATA, *(f"{n}/{d}" for n, d in pairs)}
    for name in names:
        if name not in allowed:
            sys.exit(f"unknown {name!r}: allowed are {', '.join(sorted(allowed))}")
    return [(n, d) for n, d in pairs if not names or {n, d, f"{n}/{d}"} & set(names)]


def main(names: list[str]) -> None:
    """Prints the tables."""
    torch.set_num_threads(1)
    by_eps = "--eps" in names
    names = [name for name in names if name != "--eps"]
    if by_eps:
        heads = [f"eps = {times:g} s" for times in MULTIPLES]
        print(f"| network | data | BatchNorm | variant | {' | '.join(heads)} |")
        print("|---" * (4 + len(MULTIPLES)) + "|", flush=True)
    else:
        print(f"| network | data | BatchNorm | Opacus's fix | variant | {' | '.join(COLUMNS)} |")
        print("|---" * (5 + len(COLUMNS)) + "|", flush=True)
    deep = None
    for name, data_name in chosen(names):
        data = dpnorm.data.load(data_name)
        model, source = trained(name, data)
        if by_eps:
            kept_by_eps(name, model, source, data)
            continue
        table(name, model, source, data)
        if (name, data_name) == ("resnet20", "mnist5k"):
            deep = model, source, data
    if deep is not None:
        refinements(*deep)
    print(f"\ntorch {torch.__version__}, one thread")


if __name__ == "__main__":
    main(sys.argv[1:])
