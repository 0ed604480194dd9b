"""dpnorm convert."""

from pathlib import Path

import typer

from dpnorm.cli.target import build_target, shape_for


def convert(
    target: str = typer.Argument(
        help="A model: lenet, tv:resnet18, timm:NAME or package.module:factory."
    ),
    to: str = typer.Option(
        "group",
        help="The variant: none, group, layer, instance, rms, scale, evonorm, weight-standardized, "
        "frozen, folded, public-batch, private-batch.",
    ),
    output: Path | None = typer.Option(None, "-o", "--output", help="Weights file, .safetensors."),
    diff: bool = typer.Option(False, help="Show what would change, layer by layer."),
    init: str = typer.Option("match", help="match, copy or reset."),
    groups: int | None = typer.Option(
        None, min=1, help="Groups of GroupNorm; default 16 channels each."
    ),
    input: str | None = typer.Option(None, help="Input shape, batch first: 4,3,224,224."),
    num_classes: int = typer.Option(10, min=1, help="Columns of the output."),
) -> None:
    """Replace BatchNorm layers and keep what the model has learned."""
    from dpnorm.conversion import convert as exchange
    from dpnorm.conversion.diff import render_diff
    from dpnorm.errors import InputError

    if output is not None and output.suffix != ".safetensors":
        raise InputError(f"-o is {str(output)!r}: the name must end in .safetensors")
    known = input is not None or target.startswith(("tv:", "timm:"))
    shape = shape_for(target, input) if known else (2, 1)
    model = build_target(target, shape, num_classes)
    conversion = exchange(model, to=to, groups=groups, init=init)  # type: ignore[arg-type]
    if diff:
        print(render_diff(conversion, target))
    else:
        print(f"{target}: {len(conversion.changes)} layers converted to {to}")
        if not conversion.changes and to != "batch":
            print(f"nothing to exchange; dpnorm check {target} tells what else couples records")
    if output is not None:
        conversion.save(output)
        print(f"weights in {output}, changes in {output.with_suffix('.json')}")
